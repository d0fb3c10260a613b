"""A watch over files that are read: a published file never changes its length or time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

_Stamp: TypeAlias = tuple[int, int, int, int]
"""Device and inode, then length and time."""


class FileWatch:
    """The lengths and times of files when this is made.

    Args:
        paths: of the files; missing ones are left out.
    """

    def __init__(self, paths: Iterable[Path | str]) -> None:
        found = {str(path): _stamp(str(path)) for path in paths}
        self._stamps = {path: stamp for path, stamp in found.items() if stamp is not None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileWatch) and self._stamps == other._stamps

    __hash__ = None  # type: ignore[assignment] # compared, never a key

    def changed(self) -> Path | None:
        """Return the first file that was written into or cut since, in two microseconds a file.

        Files that were removed or replaced do not count: open ones still read their old bytes.
        """
        for path, stamp in self._stamps.items():
            now = _stamp(path)
            if now != stamp and now is not None and now[:2] == stamp[:2]:
                return Path(path)
        return None


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116 and text instead of Path: half the time, and there may be thousands of files
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
