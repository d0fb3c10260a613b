"""A full disk and a folder that may not be written.

One clear error, nothing half-written, and the old index answers.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imprompt.core.errors import StorageFull
from imprompt.store.integrity import verify
from tests.disks import fill, make_read_only, mounted
from tests.store.builders import build
from tests.store.hardship import FULL, READ_ONLY, old_index

OLD = {"seed": 0, "text": "a 3 of 0, Öl auf Leinwand", "problems": 0}


def hardship(kind: str, root: Path, step: str) -> dict[str, Any]:
    program = Path(__file__).with_name("hardship.py")
    done = subprocess.run(
        [sys.executable, program, kind, root, step], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def not_writable(root: Path) -> Iterator[None]:
    """Take the permission to write from a whole tree, and give it back."""
    paths = [root, *root.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    try:
        for path in reversed(paths):
            path.chmod(modes[path] & ~0o222)
        yield
    finally:
        for path in paths:
            path.chmod(modes[path])


@pytest.mark.parametrize("step", FULL)
def test_files_cannot_grow(tmp_path: Path, step: str) -> None:
    """Each step on a full disk raises `StorageFull` and leaves no partial file and the old index.

    Afterwards, with space again, the same build goes through.
    """
    build(tmp_path, seed=0)
    found = hardship("full", tmp_path, step)
    assert found["said"].startswith("StorageFull:"), found["said"]
    assert found["leftovers"] == []
    assert found["old"] == OLD
    shutil.rmtree(tmp_path / "staging")
    assert build(tmp_path, seed=1).plan == {"seed": 1}
    assert verify(tmp_path) == []


@pytest.mark.parametrize("step", READ_ONLY)
def test_read_only_folder(tmp_path: Path, step: str) -> None:
    """Writing below a folder without write permission says `StorageFull`.

    Reading, pinning and verifying need no permission.
    """
    build(tmp_path, seed=0)
    with not_writable(tmp_path):
        found = hardship("readonly", tmp_path, step)
    assert found["said"].startswith("StorageFull:"), found["said"]
    assert found["old"] == OLD


def test_only_the_last_step_is_refused(tmp_path: Path) -> None:
    """When everything can be written but `CURRENT`, the old index stays in service."""
    build(tmp_path, seed=0)
    (tmp_path / "staging").mkdir(exist_ok=True)
    mode = stat.S_IMODE(tmp_path.stat().st_mode)
    tmp_path.chmod(0o555)
    try:
        found = hardship("readonly", tmp_path, "build")
    finally:
        tmp_path.chmod(mode)
    assert found["said"].startswith("StorageFull:"), found["said"]
    assert found["old"] == OLD


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB in memory, where this process may mount one."""
    with mounted(tmp_path, megabytes=8):
        yield tmp_path


@pytest.mark.parametrize("free_bytes", [0, 300_000, 1_100_000, 4_000_000])
def test_really_full_disk(small_disk: Path, free_bytes: int) -> None:
    """With this much left, a build fails with `StorageFull` or is published; the index is whole."""
    build(small_disk, seed=0)
    ballast = fill(small_disk, free_bytes=free_bytes)
    try:
        build(small_disk, seed=1)
    except StorageFull:
        assert old_index(small_disk) == OLD
    else:
        assert free_bytes == 4_000_000
    ballast.unlink()
    assert verify(small_disk) == []


def test_really_read_only(small_disk: Path) -> None:
    """An index on a file system that is mounted read-only answers and is verified.

    Writing says `StorageFull`.
    """
    build(small_disk, seed=0)
    make_read_only(small_disk)
    assert old_index(small_disk) == OLD
    with pytest.raises(StorageFull, match="Read-only"):
        build(small_disk, seed=1)
