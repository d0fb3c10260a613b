"""One world for all tests of the room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.generation import Generation, open_generation
from tests.ensemble.worlds import build_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the index."""
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def generation(world: Path) -> Iterator[Generation]:
    with open_generation(world) as opened:
        yield opened
