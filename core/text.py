"""Text from outside made safe for a terminal, a log, JSON and a store; sizes as text."""

from __future__ import annotations

import re
import unicodedata

REPLACEMENT = "\ufffd"

_SURROGATES = re.compile("[\ud800-\udfff]")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the writing direction, so that a name looks like another."""


def as_utf8(text: str) -> str:
    """Return the text with each lone surrogate as U+FFFD.

    Python keeps the bytes of a file name that are not UTF-8 as lone surrogates, which JSON, stores
    and terminals refuse.
    """
    return _SURROGATES.sub(REPLACEMENT, text)


def printable(text: str) -> str:
    """Return the text with terminal control characters as U+FFFD; line breaks stay."""
    return "".join(REPLACEMENT if _drives(char) else char for char in text)


def size_text(size_bytes: int | None) -> str:
    """Return a size in bytes as a person reads it: 1.5 MB."""
    if size_bytes is None:
        return "size unknown"
    from rich.filesize import decimal

    return decimal(size_bytes)


def duration_text(seconds: float) -> str:
    """Return a duration for people: 40 s, 12 min, 3 h 20 min, 8 days."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 3 * 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86400:,.0f} days"


def _drives(char: str) -> bool:
    return char != "\n" and (unicodedata.category(char) in ("Cc", "Cs") or char in _TURNING)
