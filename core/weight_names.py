"""The form ARCH//FILE, which names an architecture and a local file with its weights."""

from __future__ import annotations

from pathlib import Path

from imprompt.core.url_schemes import has_drive


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
