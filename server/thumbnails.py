"""Pictures of an `images:` corpus, small, for the page: only of folders that the operator named.

An index says in which folder an image lay by the folder's name alone, and where inside it by a
relative path. An index may come from anyone, so both are checked: the name is looked up among the
operator's folders, and the path is opened part by part below that folder, through no link.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from imprompt.core.errors import Checksum, ConfigError, UnknownRow
from imprompt.core.text import as_utf8
from imprompt.images.decode import open_image, small_jpeg
from imprompt.images.image_opening import ImageLimits
from imprompt.server.http_errors import HttpError
from imprompt.server.snapshots import Snapshot
from imprompt.store.paths import open_file

THUMBNAIL_PX: Final = 256
PICTURE_PX: Final = 1024


def folders_by_name(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders by the name that an index has for them.

    Raises:
        ConfigError: one is not a folder, or two have one name.
    """
    named: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} is not a folder.", hint="Name the folder of an images:FOLDER corpus."
            )
        name = as_utf8(folder.resolve().name)
        if name in named:
            raise ConfigError(
                f"{named[name]} and {folder.resolve()} have one name, {name}.",
                hint="An index tells folders by their names; serve one of them.",
            )
        named[name] = folder.resolve()
    return named


def image_of(
    snapshot: Snapshot, folders: Mapping[str, Path], version: str, row_id: int, *, max_bytes: int
) -> bytes:
    """Return the image file that a row's prompt was read from.

    Raises:
        HttpError: 404 if there is none to show, 403 if its path leads out of the folder.
    """
    if version != snapshot.version.manifest.version:
        raise _missing("This version of the index is not in service.")
    try:
        (prompt,) = snapshot.version.prompts.get_many([row_id])
    except UnknownRow as error:
        raise _missing("The index has no such row.") from error
    folder = folders.get(prompt.source)
    if folder is None:
        raise _missing("The prompt does not come from a folder of images that is served.")
    if not _is_inside(prompt.source_key):
        raise _forbidden()
    try:
        with os.fdopen(open_file(folder, prompt.source_key), "rb") as file:
            content = file.read(max_bytes + 1)
    except Checksum as error:
        raise _forbidden() from error
    except (OSError, ValueError) as error:
        raise _missing("The image is no longer there.") from error
    if len(content) > max_bytes:
        raise _missing(f"The image has more than {max_bytes:,} bytes.")
    return content


def thumbnail(image: bytes, side_px: int, limits: ImageLimits) -> bytes:
    """Return a JPEG of the picture that fits into a square, without any metadata.

    Raises:
        ImageRejected: the image cannot be read.
    """
    return small_jpeg(open_image(image, limits=limits, enough_px=side_px), side_px)


def no_image() -> HttpError:
    """Return the 404 for a file that is no readable image."""
    return _missing("The file is not an image that can be read.")


def _is_inside(key: str) -> bool:
    """Return whether a path is relative and has no part that is empty, "." or ".."."""
    if "\\" in key or "\0" in key or ":" in key.split("/")[0]:
        return False
    return not {"", ".", ".."} & {*key.split("/")}


def _missing(message: str) -> HttpError:
    return HttpError(HTTPStatus.NOT_FOUND, "no-picture", message)


def _forbidden() -> HttpError:
    message = "The path of the image leads out of its folder."
    return HttpError(HTTPStatus.FORBIDDEN, "no-picture", message)
