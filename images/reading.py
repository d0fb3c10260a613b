"""The prompts of many files at once, in order and in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeAlias

from imprompt.core.errors import ImageRejected
from imprompt.core.lookahead import side_by_side
from imprompt.images.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from imprompt.images.stealth import read_hidden_prompt

# Threads, not processes: a file's header takes 0.1 to 0.5 ms of processor time, less than handing
# it to a process and back, and
# the wait for a disk or a network is what is to be shared out.
_THREADS = 4
_AHEAD = 4 * _THREADS
"""Files read before their turn: at 8 MiB of text each, the memory's bound."""

Found: TypeAlias = EmbeddedPrompt | ImageRejected | None


def read_embedded_prompts(
    paths: Sequence[Path], *, hidden: bool = False
) -> Generator[tuple[Path, Found]]:
    """Yield each path in order with its prompt, None if it carries none, or its error.

    Args:
        paths: image files.
        hidden: also look into the pixels of pictures with transparency; this decodes them.
    """

    def read(path: Path) -> tuple[Path, Found]:
        return path, _read(path, hidden=hidden)

    yield from side_by_side(read, paths, threads=_THREADS, most_ahead=_AHEAD)


def _read(path: Path, *, hidden: bool) -> Found:
    try:
        found = read_embedded_prompt(path)
        return read_hidden_prompt(path) if hidden and found is None else found
    except ImageRejected as error:
        return error
