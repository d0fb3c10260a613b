"""Where a text that names a place begins with a URL's scheme, and where with a drive of Windows."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.ASCII | re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:", re.ASCII | re.IGNORECASE)


def url_scheme(text: str) -> str:
    """Return the scheme of a URL, lower case, or "" for a path; one letter is a drive: C://x."""
    match = _SCHEME.match(text)
    return "" if match is None else match[1].lower()


def has_drive(text: str) -> bool:
    r"""Return whether a path begins with a drive of Windows, such as C:\x, C:/x or C:x."""
    return _DRIVE.match(text) is not None
