"""Ends what the tests of the contracts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.milvus_lite import close_lite_file


@pytest.fixture(scope="session", autouse=True)
def milvus_ends() -> Iterator[None]:
    """Milvus Lite, where a test started it, ends with the session."""
    yield
    close_lite_file()
