"""Several server processes over one index folder that is upgraded, cleaned up and damaged."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imprompt.store import layout
from imprompt.store.publish import current_name, version_names
from tests.server.conftest import PROMPTS
from tests.server.load import Answer, asking, until
from tests.server.processes import ROOT, ask, served, started, until_ready

pytestmark = pytest.mark.slow


def gc(root: Path) -> None:
    """As a person would, from a process of its own."""
    subprocess.run(
        [sys.executable, "cli.py", "gc", "--index", str(root), "--quiet"],
        cwd=ROOT,
        check=True,
        timeout=60,
    )


def version_of(port: int) -> object:
    """What a server answers from."""
    return ask(port, "/v1/info")[1]["version"]


def test_an_index_is_upgraded_under_two_servers(build: Callable[..., Path], tmp_path: Path) -> None:
    """Both answer throughout and end on the new version.

    `gc` removes the old version when nobody reads it; a third server opens the new one.
    """
    root = build(tmp_path)
    old = current_name(root)
    with (
        started(root, tmp_path / "first.log") as (one, first),
        started(root, tmp_path / "second.log") as (other, second),
    ):
        until_ready(first, one)
        until_ready(second, other)
        ports = itertools.cycle((first, second))

        def search(text: str) -> Answer:
            return ask(next(ports), "/v1/search", {"text": text, "k": 1})

        with asking(search, PROMPTS, clients=4) as load:
            gc(root)
            build(tmp_path, (*PROMPTS, "a teapot"))
            new = current_name(root)
            gc(root)  # while the servers change over: one or both may still read the old version
            load.goes_on()
            until(lambda: version_of(first) == version_of(second) == new)
            done = len(load.right)
            load.goes_on(20)
            assert set(load.right[done + 4 :]) == {new}
            gc(root)
            assert version_names(root) == [new]
            load.goes_on(20)
            with served(root, tmp_path / "third.log") as (_, third):
                assert version_of(third) == new
                (found,) = ask(third, "/v1/search", {"text": "a teapot", "k": 1})[1]["results"]
                assert found["nearest"][0]["prompt"] == "a teapot"
        assert not load.wrong
        assert not load.refused
        assert {old, new} == set(load.right)


def test_a_file_that_is_cut_short_ends_no_process(index: Path, tmp_path: Path) -> None:
    """Whichever file it is: both live, answer right or not at all, and recover with its bytes."""
    root = Path(shutil.copytree(index, tmp_path / "index"))
    folder = layout.version_folder(root, current_name(root) or "")
    with (
        started(root, tmp_path / "first.log") as (one, first),
        started(root, tmp_path / "second.log") as (other, second),
    ):
        until_ready(first, one)
        until_ready(second, other)
        ports = itertools.cycle((first, second))

        def search(text: str) -> Answer:
            return ask(next(ports), "/v1/search", {"text": text, "k": 1})

        with asking(search, PROMPTS, clients=4) as load:
            for pattern in ("index/*.faiss", "vectors/*/00000.npy", layout.PROMPTS):
                whole = {path: path.read_bytes() for path in folder.glob(pattern)}
                for path in whole:
                    path.chmod(0o644)
                    with path.open("r+b") as file:
                        file.truncate(100)
                if pattern.startswith("index"):  # it lies in memory
                    load.goes_on(20)
                    assert not load.refused
                else:
                    load.is_refused(20)
                for path, content in whole.items():
                    path.write_bytes(content)
                until(lambda: [ask(port, "/readyz")[0] for port in (first, second)] == [200, 200])
                load.goes_on(20)
        assert not load.wrong
        assert set(load.refused) == {(503, "checksum")}
        assert one.poll() is None
        assert other.poll() is None
