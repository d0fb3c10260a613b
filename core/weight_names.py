"""Forms of encoders' names: the hub's prefixes, and ARCH//FILE for a local weight file."""

from __future__ import annotations

from pathlib import Path

from imprompt.core.url_schemes import has_drive

HUB_PREFIX = "hf-hub:"
"""Of a repository in the layout of open_clip."""
TRANSFORMERS_PREFIX = "hf:"
"""Of a repository in the layout of transformers."""


def split_weights(name: str) -> tuple[str, Path] | None:
    """Return the architecture and the file of ARCH//FILE, or None for any other form.

    All that follows `//` is the path, so ARCH//x/y.pt is relative. People write it for /x/y.pt too,
    which is meant where only that exists. The file need not exist.
    """
    architecture, slashes, file = name.partition("//")
    if not slashes or has_drive(name):
        return None
    path, absolute = Path(file).expanduser(), Path("/", file)
    return architecture, absolute if absolute.is_file() and not path.is_file() else path
