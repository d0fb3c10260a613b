"""Sizes as people type them."""

from __future__ import annotations

import re
from typing import Annotated

import typer

_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?", re.ASCII | re.IGNORECASE)


def size_bytes(text: str) -> int:
    """The bytes of a size such as `4GiB`, `500 MB`, `1.5g` or `1048576`.

    Raises:
        ConfigError: it is none, or below one byte.
    """
    from imprompt.core.errors import ConfigError

    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS.get(found[2].lower(), 0)) if found else 0
    if size < 1:
        raise ConfigError(f"{text!r} is no size.", hint="Say it like 4GiB, 500MB or 1048576.")
    return size


MemoryBudget = Annotated[
    str,
    typer.Option(
        "--memory-budget",
        metavar="SIZE",
        help="Memory that the index may take while it answers, such as 4GiB.",
    ),
]
DEFAULT_MEMORY = "4GiB"
