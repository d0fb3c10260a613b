"""Versions that come and go while questions are answered."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from imprompt.core.protocols import DualEncoder
from imprompt.core.values import EncoderSpec
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.server.models import Models
from imprompt.server.server_settings import ServerSettings
from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.publish import read_current
from tests.retriever.colours import SPEC as COLOURS
from tests.retriever.colours import ColourPair
from tests.server.conftest import PROMPTS, Serve
from tests.server.load import until
from tests.server.pictures import png


def held_files() -> str:
    """Return the files this process has open or mapped, deleted ones too; "" without /proc."""
    process = Path("/proc/self")
    if not process.exists():
        return ""
    links = []
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):  # the one that lists them is gone again
            links.append(str(descriptor.readlink()))
    return "\n".join([(process / "maps").read_text("utf-8"), *links])


def asked(client: TestClient, text: str = "a teapot") -> dict[str, object]:
    done = client.post("/v1/search", json={"text": text, "k": 1})
    assert done.status_code == 200, done.text
    result: dict[str, object] = done.json()["results"][0]
    return result


def test_a_new_version_is_taken_up_without_a_dropped_request(
    serve: Serve, build: Callable[..., Path], tmp_path: Path
) -> None:
    """Under load every answer fits the version it names; the old version is closed."""
    root = build(tmp_path)
    stop, answers, problems = threading.Event(), [], []
    with serve(ServerSettings(root, watch_s=0.05)) as client:
        first = asked(client)["version"]
        assert str(first) in held_files() or not held_files()

        def load() -> None:
            while not stop.is_set():
                done = client.post("/v1/search", json={"text": "a teapot", "k": 1})
                if done.status_code == 200:
                    (result,) = done.json()["results"]
                    answers.append((result["version"], result["nearest"][0]["prompt"]))
                else:
                    problems.append(done.text)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 10)
        build(tmp_path, (*PROMPTS, "a teapot"))
        until(lambda: answers[-1][0] != first)
        stop.set()
        for thread in threads:
            thread.join()
        assert not problems
        assert {prompt for version, prompt in answers if version != first} == {"a teapot"}
        assert "a teapot" not in {prompt for version, prompt in answers if version == first}
        assert "imprompt_index_version_swaps_total 1.0" in client.get("/metrics").text
        until(lambda: str(first) not in held_files())


def test_a_version_that_cannot_be_used_is_passed_over(
    serve: Serve, build: Callable[..., Path], tmp_path: Path
) -> None:
    """A damaged version, a damaged CURRENT, a deleted index: the one in service keeps serving."""
    root = build(tmp_path)
    with serve(ServerSettings(root, watch_s=0.02)) as client:
        first = asked(client)["version"]
        layout.current_path(root).write_text("nonsense", "utf-8")
        until(lambda: "imprompt_index_version_failures_total 1.0" in client.get("/metrics").text)
        (tmp_path / "other").mkdir()
        other = build(tmp_path / "other", (*PROMPTS, "a teapot"))
        name, sha256 = read_current(other) or ("", "")
        damaged = layout.version_folder(root, name)
        shutil.copytree(layout.version_folder(other, name), damaged)
        (damaged / layout.PROMPTS).chmod(0o644)
        (damaged / layout.PROMPTS).write_bytes(b"no database")
        layout.current_path(root).write_text(f"{name} {sha256}\n", "utf-8")
        until(lambda: "imprompt_index_version_failures_total 2.0" in client.get("/metrics").text)
        assert asked(client)["version"] == first
        shutil.rmtree(root)
        time.sleep(0.1)
        assert asked(client)["version"] == first
        assert client.post("/v1/query", files={"image": png()}).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_an_encoder_is_kept_while_its_weights_are_the_same(tmp_path: Path) -> None:
    """Under one name it is loaded again for a version that was made with other weights."""
    loaded = []

    def made_with(weights: str) -> ColourPair:
        return ColourPair(spec=replace(COLOURS, weights_sha256={"model": weights * 64}))

    def load(spec: EncoderSpec) -> DualEncoder:
        loaded.append(spec.weights_sha256["model"][0])
        return made_with(loaded[-1])

    (tmp_path / "colours.txt").write_text("red\ngreen\nblue\n")
    corpus = parse_corpus(str(tmp_path / "colours.txt"))
    models = Models(ServerSettings(tmp_path, degrade=True), load=load, announce=lambda line: None)
    for number, weights in enumerate("aab"):
        root = tmp_path / str(number)
        build_index(root, [corpus], made_with(weights))
        with open_version(root) as version:
            models.prepare(version)
    assert loaded == ["a", "b"]


def test_a_fault_while_starting_is_told(index: Path) -> None:
    """Also an unexpected one: whoever started the server learns why it does not get ready."""
    from imprompt.core.errors import ImpromptError
    from imprompt.server.app import create_app

    def broken(_spec: EncoderSpec) -> DualEncoder:
        raise RuntimeError("no such model")

    told: list[ImpromptError] = []
    with TestClient(
        create_app(ServerSettings(index), load=broken, on_failure=told.append),
        base_url="http://localhost",
    ):
        until(lambda: bool(told))
    assert "RuntimeError: no such model" in told[0].message


def test_without_an_index_nothing_gets_ready(tmp_path: Path) -> None:
    """The caller is told why, and what is asked meanwhile is told to come again."""
    from imprompt.core.errors import ImpromptError
    from imprompt.server.app import create_app

    told: list[ImpromptError] = []
    app = create_app(
        ServerSettings(tmp_path), load=lambda spec: pytest.fail(spec.name), on_failure=told.append
    )
    with TestClient(app, base_url="http://localhost") as client:
        until(lambda: bool(told))
        assert told[0].kind == "no-index"
        done = client.post("/v1/search", json={"text": "fox"})
        assert (done.status_code, done.json()["kind"]) == (503, "busy")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
