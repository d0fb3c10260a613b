"""File systems of a test's own, in memory, where this process may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a file system of this size at `place`, a folder; skip the test if nobody lets us."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(
            "mounting is not permitted here; tests/store/test_storage.py::test_files_cannot_grow "
            "holds the same with a limit on the length of files"
        )
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path, *, free_bytes: int) -> Path:
    """Leave this much free on the file system of a folder; return the file that takes the rest."""
    space = os.statvfs(place)
    ballast = place / "ballast"
    ballast.write_bytes(bytes(max(space.f_bavail * space.f_frsize - free_bytes, 0)))
    return ballast


def make_read_only(place: Path) -> None:
    """Mount the file system at `place` again, for reading alone."""
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
