"""Has anybody written into files that are being read? A published file never changes, so its length and time say so."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

_Stamp: TypeAlias = tuple[int, int, int, int]
"""Device and inode, then length and time."""


class FileWatch:
    """Lengths and times of files, as they are now.

    Args:
        paths: of the files; one that is not there is left out.
    """

    def __init__(self, paths: Iterable[Path | str]) -> None:
        found = {str(path): _stamp(str(path)) for path in paths}
        self._stamps = {path: stamp for path, stamp in found.items() if stamp is not None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileWatch) and self._stamps == other._stamps

    __hash__ = None  # type: ignore[assignment] # compared, never a key

    def changed(self) -> Path | None:
        """The first file that was written into or cut since; two microseconds a file.

        A file that was removed, or replaced by another one, is not: whoever has opened it still
        reads what it was.
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
