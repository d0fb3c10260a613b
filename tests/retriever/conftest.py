"""One index of colours for all tests of the room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imprompt.store.index_version import IndexVersion, open_version
from tests.retriever.colours import build_colours


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexVersion]:
    root = tmp_path_factory.mktemp("colours")
    build_colours(root)
    with open_version(root) as opened:
        yield opened
