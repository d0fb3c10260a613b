"""The images that a command line names: files, folders, patterns, and standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

STDIN = "-"
_URL = re.compile(r"https?://", re.IGNORECASE)


def named_images(names: Sequence[str]) -> list[Path | bytes]:
    """Return the image files that the arguments name, in order; the bytes of one for `-`.

    Raises:
        UsageError: an argument is a URL.
        ConfigError: standard input is named twice.
        QueryError: the folders hold no image, or a pattern matches nothing.
        ImageRejected: standard input cannot be read.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.images.image_files import find_images, require_images

    for name in names:
        _refuse_url(name)
    if names.count(STDIN) > 1:
        raise ConfigError(
            "- is given twice; standard input holds one image.", hint="Name files for the others."
        )
    if STDIN not in names:
        return [*require_images([Path(name) for name in names])]
    place = names.index(STDIN)
    before, after = (
        find_images([Path(name) for name in part]) for part in (names[:place], names[place + 1 :])
    )
    return [*before, read_stdin(), *after]


def read_stdin() -> bytes:
    """Return the bytes of standard input up to one more than an image file may have.

    Raises:
        ImageRejected: it cannot be read.
    """
    from imprompt.core.errors import ImageRejected
    from imprompt.images.image_opening import DEFAULT_LIMITS, describe

    try:
        return sys.stdin.buffer.read(DEFAULT_LIMITS.max_bytes + 1)
    except OSError as error:
        raise ImageRejected(
            "standard input", f"it cannot be read ({describe(error)})", hint="Pipe an image to it."
        ) from error


def _refuse_url(name: str) -> None:
    from shlex import quote

    from imprompt.core.errors import UsageError

    if _URL.match(name):
        raise UsageError(
            f"{name} is a URL; query reads files and standard input.",
            hint=f"Pipe it: curl -L {quote(name)} | imprompt query -",
        )
