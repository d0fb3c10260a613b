"""Indexes that all tests of the ensemble share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imprompt.encoders.lite import load_lite
from imprompt.encoders.registry import output_encoder
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import IndexVersion, open_version
from tests.ensemble.builders import build_colour_index


@pytest.fixture(scope="session")
def index_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of the index of colours."""
    return build_colour_index(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="session")
def version(index_root: Path) -> Iterator[IndexVersion]:
    with open_version(index_root) as opened:
        yield opened


@pytest.fixture(scope="session")
def lite_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of an index of three prompts by the built-in encoder."""
    folder = tmp_path_factory.mktemp("lite")
    (folder / "p.txt").write_text("a red fox\na blue lake\na green hill\n", "utf-8")
    pair = load_lite()
    build_index(
        folder / "index", [parse_corpus(str(folder / "p.txt"))], pair, extra=[output_encoder(pair)]
    )
    return folder / "index"
