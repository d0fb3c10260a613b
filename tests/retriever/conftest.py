"""One index of colours for all tests of the room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imprompt.store.index_version import Generation, open_generation
from tests.retriever.colours import build_colours


@pytest.fixture(scope="session")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    root = tmp_path_factory.mktemp("colours")
    build_colours(root)
    with open_generation(root) as opened:
        yield opened
