"""An index on a medium for reading alone: it answers, and nobody tries to write to it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imprompt.core.errors import StorageFull
from imprompt.server.server_settings import ServerSettings
from tests.commands.test_query_folder import carrying
from tests.conftest import Imprompt
from tests.disks import make_read_only, mounted
from tests.server.conftest import PROMPTS, Serve

pytestmark = pytest.mark.slow

_watched: dict[str, Any] = {"below": None, "writes": []}
_CHANGES = {
    *("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "shutil.rmtree"),
}


def _note_writes(event: str, arguments: tuple[Any, ...]) -> None:
    below = _watched["below"]
    if below is None or event not in _CHANGES | {"open"}:
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        return
    if not isinstance(arguments[0], str | bytes | Path):  # a descriptor, opened before
        return
    place = os.fsdecode(arguments[0])
    # A relative name is one below a descriptor: the index is opened part by part.
    if place.startswith(below) or not place.startswith("/"):
        _watched["writes"].append((event, arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_note_writes)  # for good: a hook cannot be taken off


@pytest.fixture
def medium(index: Path, tmp_path: Path) -> Iterator[Path]:
    """The same on a file system that is mounted for reading alone; every try to write is noted."""
    place = tmp_path / "medium"
    place.mkdir()
    with mounted(place, megabytes=24) as found:
        shutil.copytree(index, found / "index")
        carrying(found / "a.png", "a blue bowl")
        make_read_only(found)
        _watched["below"], _watched["writes"] = str(found), []
        try:
            yield found
        finally:
            _watched["below"] = None


def test_a_read_only_medium(imprompt: Imprompt, serve: Serve, medium: Path) -> None:
    """`query`, `verify`, `info` and `serve` work there, and try to write no file."""
    root = medium / "index"
    assert imprompt("verify", "--index", root).code == 0
    assert imprompt("info", "--index", root).code == 0
    done = imprompt("query", medium / "a.png", "--index", root, "--json")
    assert (done.code, done.lines[0]["prompt"]) == (0, "a blue bowl")
    with serve(ServerSettings(root)) as client:
        found = client.post("/v1/search", json={"text": PROMPTS[0], "k": 1})
        assert found.json()["results"][0]["nearest"][0]["prompt"] == PROMPTS[0]
    assert _watched["writes"] == []
    done = imprompt("gc", "--index", root, "--quiet")
    assert done.code == StorageFull.exit_code
    assert "Read-only file system. Name a folder on another file system" in done.err
    assert len(done.err.splitlines()) == 1
    assert _watched["writes"], "the hook sees what `gc` tries"
