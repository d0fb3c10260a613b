"""A prompt is removed while 64 clients ask: every answer is whole, and it is gone afterwards."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imprompt.store.publish import current_name, version_names
from tests.server.conftest import PROMPTS
from tests.server.load import until
from tests.server.processes import ROOT, ask, served

pytestmark = pytest.mark.slow

CLIENTS = 64
K = 5
REMOVED = "a secret teapot in the snow"
TEXTS = (*PROMPTS, REMOVED)


@dataclass(frozen=True, slots=True)
class Seen:
    """One response: when its request was sent, its status, and what was answered from where."""

    sent: float
    text: str
    status: int
    kind: str = ""
    version: str = ""
    nearest: tuple[tuple[str, float], ...] = ()


def one(port: int, text: str) -> Seen:
    sent = time.monotonic()
    status, value = ask(port, "/v1/search", {"text": text, "k": K})
    if status != 200:
        return Seen(sent, text, status, kind=str(value.get("kind")))
    (result,) = value["results"]
    nearest = tuple((hit["prompt"], round(hit["score"], 5)) for hit in result["nearest"])
    return Seen(sent, text, status, version=result["version"], nearest=nearest)


def test_a_removal_under_load(build: Callable[..., Path], tmp_path: Path) -> None:
    """Each answer is the one that its version alone gives, the five nearest with their scores.

    Requests sent after the first answer from the new version never see the old one again. Nothing
    else than an answer or the documented 503 ("busy") is sent, and the old version is purged.
    """
    root = build(tmp_path, TEXTS)
    old = current_name(root)
    with served(root, tmp_path / "server.log") as (process, port):
        expected = {(old, text): one(port, text).nearest for text in TEXTS}
        assert expected[old, REMOVED][0] == (REMOVED, 1.0)
        seen: list[Seen] = []
        broken: list[Exception] = []
        stop = threading.Event()

        def client(number: int) -> None:
            for text in itertools.islice(itertools.cycle(TEXTS), number % len(TEXTS), None):
                if stop.is_set():
                    return
                try:
                    seen.append(one(port, text))
                except Exception as error:  # noqa: BLE001 -- whatever it is, the test has to hear of it
                    broken.append(error)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(seen) > 2 * CLIENTS or bool(broken), seconds=60)
            words = ["remove", "--where", f"text = '{REMOVED}'", "--index", str(root), "--quiet"]
            subprocess.run([sys.executable, "cli.py", *words], cwd=ROOT, check=True, timeout=120)
            new = current_name(root)
            until(lambda: any(each.version == new for each in seen) or bool(broken), seconds=60)
            done = len(seen)
            until(lambda: len(seen) > done + 2 * CLIENTS or bool(broken), seconds=60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        expected |= {(new, text): one(port, text).nearest for text in TEXTS}
        assert process.poll() is None
    assert not broken
    assert version_names(root) == [new] != [old]
    answered = [each for each in seen if each.status == 200]
    for each in answered:
        assert each.nearest == expected[each.version, each.text]
    assert {(each.status, each.kind) for each in seen} <= {(200, ""), (503, "busy")}
    switched = min(each.sent for each in answered if each.version == new)
    first_answer = next(i for i, each in enumerate(seen) if each.version == new)
    later = [each for each in seen[first_answer:] if each.sent > switched and each.version]
    assert sum(each.version == old for each in answered) > CLIENTS
    assert sum(each.version == new for each in answered) > CLIENTS
    assert not any(REMOVED in dict(each.nearest) for each in later if each.version == new)
    assert not any(
        REMOVED in dict(nearest) for (version, _), nearest in expected.items() if version == new
    )
