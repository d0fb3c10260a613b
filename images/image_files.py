"""The image files that paths on a command line name."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from imprompt.core.errors import ImageRejected, QueryError
from imprompt.core.pip_lines import install_extra
from imprompt.images.image_opening import opened_file

_ALWAYS_READ = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".avif"),
    }
)
_READ_BY_PACKAGE = {"pillow_heif": {".heic", ".heif", ".hif"}, "pillow_jxl": {".jxl"}}
"""Formats that the packages of the extra `formats` read."""
_READ_WITH_EXTRA = frozenset().union(*_READ_BY_PACKAGE.values())
_NEVER_READ = frozenset(
    {*(".jp2", ".j2k", ".jpx", ".jpf", ".psd", ".tga", ".exr"), *(".qoi", ".icns", ".ico")}
)


def extensions() -> frozenset[str]:
    """Return the extensions of the images that can be read, lower case, with the dot."""
    installed = (names for package, names in _READ_BY_PACKAGE.items() if find_spec(package))
    return _ALWAYS_READ.union(*installed)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the image files that `paths` name, in the order of `paths`.

    A folder stands for the files below it that have an image's extension, or none and an image's
    first bytes, sorted by name folder by folder. Links to folders are followed, each folder is
    entered once, and names that begin with a dot are skipped. A pattern such as `dir/*.png`, unless
    a file has that name, stands for what it matches, sorted; shells of Windows leave it to the
    program. Any other path is kept, whether the file exists or not, and so is a folder that cannot
    be listed: opening it reports the error.

    Raises:
        QueryError: a pattern matches nothing.
    """
    return find_images_and_unreadable(paths)[0]


def find_images_and_unreadable(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return `find_images(paths)`, and the pictures in folders whose format cannot be read.

    Raises:
        QueryError: a pattern matches nothing.
    """
    read = extensions()
    unreadable = (_READ_WITH_EXTRA | _NEVER_READ) - read
    images: list[Path] = []
    unread: list[Path] = []
    for path in chain.from_iterable(map(_matches, paths)):
        if _folder_identity(path) is None:
            images.append(path)
            continue
        for file in _walk(path, read | unreadable):
            (unread if file.suffix.lower() in unreadable else images).append(file)
    return images, unread


def require_images(paths: Sequence[Path]) -> list[Path]:
    """Return `find_images(paths)`, which must not be empty where paths are named.

    Raises:
        QueryError: the folders hold no image, or a pattern matches nothing.
    """
    images = find_images(paths)
    if paths and not images:
        names = ", ".join(map(str, paths))
        raise QueryError(
            f"There are no images in {names}.",
            hint=f"Files count by extension: {', '.join(sorted(extensions()))}.",
        )
    return images


def unreadable_format(path: Path) -> ImageRejected:
    """Return the error that names a file's unreadable format and the remedy."""
    hint = "Save it as PNG or JPEG."
    if path.suffix.lower() in _READ_WITH_EXTRA:
        hint = f"Install the packages: {install_extra('formats')}"
    return ImageRejected(path, f"{path.suffix} files are not supported", hint=hint)


def _matches(path: Path) -> list[Path]:
    """Return what a pattern matches, sorted; the path itself if it exists or is no pattern."""
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return [path]
    # Its folders that exist are no patterns, whatever brackets they have.
    folder = next(parent for parent in path.parents if parent.is_dir())
    pattern = str(path.relative_to(folder))
    names = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 skips hidden files
    found = [folder / name for name in sorted(names)]
    if "**" in path.parts:  # it matches the files of its folders as well
        found = [match for match in found if not match.is_dir()]
    if not found:
        raise QueryError(f"No file matches '{path}'.", hint="Name files, or folders of them.")
    return found


def _walk(root: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        folder = _folder_identity(path)
        if folder is None:
            if has_image_name(path, suffixes):
                yield path
        elif folder not in entered:
            entered.add(folder)
            try:
                children = sorted(path.iterdir(), reverse=True)
            except OSError:
                yield path
                continue
            waiting.extend(child for child in children if not child.name.startswith("."))


def has_image_name(path: Path, suffixes: frozenset[str]) -> bool:
    """Return whether a file counts as an image: by its extension, or without one by its content."""
    return path.suffix.lower() in suffixes or (not path.suffix and _is_image(path))


def _is_image(path: Path) -> bool:
    try:
        with opened_file(path):
            return True
    except ImageRejected:
        return False


def _folder_identity(path: Path) -> tuple[int, int] | None:
    """Return (device, inode) of a folder, through links; None for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
