"""One small index and a server over it, for the tests of each integration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.test_filter_options import PAINTED, build
from tests.server.processes import served


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("integrations"), PAINTED)


@pytest.fixture(scope="module")
def address(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(index, tmp_path_factory.mktemp("server") / "log") as (_, port):
        yield f"http://127.0.0.1:{port}"
