"""One small index of the `lite` encoder and one running server over it, for all server tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from imprompt.core.errors import ImpromptError
from imprompt.core.protocols import DualEncoder
from imprompt.core.values import EncoderSpec
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.encoders.registry import output_encoder
from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.server.app import create_app
from imprompt.server.server_settings import ServerSettings

PROMPTS = (
    "a red fox in the snow",
    "a red fox in deep snow",
    "a bowl of ramen, steam, studio light",
    "a lighthouse at dusk, warm light, calm sea",
    "portrait of an old sailor, oil on canvas",
    "a yellow flower in a garden, macro photograph",
    "a temple by a lake, morning fog",
    "an astronaut riding a horse on mars",
    "a quiet street in kyoto at night, rain",
    "a watercolor map of an island",
)


@pytest.fixture(scope="session")
def lite() -> LiteEncoder:
    """The built-in encoder, loaded once for all."""
    return load_lite()


@pytest.fixture(scope="session")
def build(lite: LiteEncoder) -> Callable[..., Path]:
    """Publishes an index of prompts in a folder, or of another corpus."""

    def run(folder: Path, prompts: tuple[str, ...] = PROMPTS, *, corpus: str = "") -> Path:
        if not corpus:
            corpus = str(folder / "prompts.txt")
            Path(corpus).write_text("\n".join(prompts), "utf-8")
        options = BuildOptions(replace=True)
        build_index(
            folder / "index",
            [parse_corpus(corpus)],
            lite,
            extra=[output_encoder(lite)],
            options=options,
        )
        return folder / "index"

    return run


@pytest.fixture(scope="session")
def index(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("served"))


Serve = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(scope="session")
def serve(lite: LiteEncoder, index: Path) -> Serve:
    """A context manager: a client of a ready server, over the shared index unless one is given."""

    @contextmanager
    def run(
        config: ServerSettings | None = None,
        on_ready: Callable[[], None] = lambda: None,
        **changes: object,
    ) -> Iterator[TestClient]:
        chosen = replace(config or ServerSettings(index), **changes)  # type: ignore[arg-type]

        failures: list[ImpromptError] = []

        def load(spec: EncoderSpec) -> DualEncoder:
            assert spec.name == "lite"
            return lite

        app = create_app(chosen, load=load, on_ready=on_ready, on_failure=failures.append)
        with TestClient(
            app, base_url="http://localhost:7861", raise_server_exceptions=False
        ) as client:
            deadline = time.monotonic() + 60
            while client.get("/readyz").status_code != 200:
                assert not failures
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield client

    return run


@pytest.fixture(scope="session")
def client(serve: Serve) -> Iterator[TestClient]:
    with serve() as found:
        yield found
