"""The image files that paths on a command line mean."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import QueryError

EXTENSIONS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"}
)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files that `paths` name, in the order of `paths`.

    A folder stands for the files below it that have an image's extension, in the order of their names, folder by folder;
    links to folders are followed and each folder is entered once; names that begin with a dot are left out. Any other path is
    kept as it is, whatever its extension and whether it exists or not, and so is a folder that may not be listed: opening it
    tells why.
    """
    found: list[Path] = []
    for path in paths:
        found.extend(_walk(path) if _folder_identity(path) else [path])
    return found


def require_images(paths: Sequence[Path]) -> list[Path]:
    """`find_images`, where there must be some.

    Raises:
        QueryError: folders were named, and no image is in them.
    """
    found = find_images(paths)
    if paths and not found:
        names = ", ".join(map(str, paths))
        raise QueryError(f"There are no images in {names}.", hint=f"Files count by extension: {', '.join(sorted(EXTENSIONS))}.")
    return found


def _walk(root: Path) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        folder = _folder_identity(path)
        if folder is None:
            if path.suffix.lower() in EXTENSIONS:
                yield path
        elif folder not in entered:
            entered.add(folder)
            try:
                children = sorted(path.iterdir(), reverse=True)
            except OSError:
                yield path
                continue
            waiting.extend(child for child in children if not child.name.startswith("."))


def _folder_identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of a folder or of the folder that a link leads to; None for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
