"""The image files that paths on a command line mean."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from imprompt.core.errors import ImageRejected, QueryError
from imprompt.images.image_opening import opened_file

_ALWAYS = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".avif",
    }
)
_BY_PACKAGE = {
    "pillow_heif": frozenset({".heic", ".heif", ".hif"}),
    "pillow_jxl": frozenset({".jxl"}),
}
"""Formats of the extra `formats`."""
_NEVER = frozenset(
    {".jp2", ".j2k", ".jpx", ".jpf", ".psd", ".tga", ".exr", ".qoi", ".icns", ".ico"}
)
_PICTURES = frozenset().union(_NEVER, *_BY_PACKAGE.values())


def extensions() -> frozenset[str]:
    """Return the extensions of the images that are read here, lower case, with the dot."""
    return _ALWAYS.union(*(names for package, names in _BY_PACKAGE.items() if find_spec(package)))


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files that `paths` name, in the order of `paths`.

    A folder stands for the files below it that have an image's extension, or none and an image's
    first bytes, in the order of their names, folder by folder; links to folders are followed and
    each folder is entered once; names that begin with a dot are left out. Any other path is kept as
    it is, whatever its extension and whether it exists or not, and so is a folder that may not be
    listed: opening it tells why.
    """
    read = extensions()
    return [
        found
        for path in paths
        for found in (_walk(path, read) if _folder_identity(path) else [path])
    ]


def unread_images(paths: Sequence[Path]) -> list[Path]:
    """Return the pictures below folders that `find_images` leaves out, since nothing installed reads their format."""
    left = _PICTURES - extensions()
    folders = [path for path in paths if _folder_identity(path)]
    return [
        found for path in folders for found in _walk(path, left) if found.suffix.lower() in left
    ]


def require_images(paths: Sequence[Path]) -> list[Path]:
    """`find_images`, where there must be some.

    Raises:
        QueryError: folders were named, and no image is in them.
    """
    found = find_images(paths)
    if paths and not found:
        names = ", ".join(map(str, paths))
        raise QueryError(
            f"There are no images in {names}.",
            hint=f"Files count by extension: {', '.join(sorted(extensions()))}.",
        )
    return found


def _walk(root: Path, wanted: frozenset[str]) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        folder = _folder_identity(path)
        if folder is None:
            if path.suffix.lower() in wanted or (not path.suffix and _looks_like_an_image(path)):
                yield path
        elif folder not in entered:
            entered.add(folder)
            try:
                children = sorted(path.iterdir(), reverse=True)
            except OSError:
                yield path
                continue
            waiting.extend(child for child in children if not child.name.startswith("."))


def _looks_like_an_image(path: Path) -> bool:
    try:
        with opened_file(path):
            return True
    except ImageRejected:
        return False


def _folder_identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of a folder or of the folder that a link leads to; None for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
