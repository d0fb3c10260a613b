"""The prompts of many files at once, in order and in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from imprompt.core.errors import ImageRejected
from imprompt.core.lookahead import side_by_side
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt

# Threads, not processes: a file's header takes 0.1 to 0.5 ms of processor time, less than handing
# it to a process and back. What they share out is the wait for a disk or a network. At 8 MiB of
# text in each file, their number also bounds the memory.
_THREADS = 8

PromptOrError: TypeAlias = EmbeddedPrompt | ImageRejected | None
Source = TypeVar("Source", Path, bytes, Path | bytes)


def read_embedded_prompts(
    sources: Sequence[Source], *, hidden: bool = False
) -> Generator[tuple[Source, PromptOrError]]:
    """Yield each file, in order, with its prompt, None without one, or the error of reading it.

    Args:
        sources: paths, or the bytes of image files.
        hidden: also search the pixels of PNG and WebP files, which decodes them.
    """
    read = partial(prompt_or_error, hidden=hidden)
    prompts = side_by_side(read, sources, threads=_THREADS)
    try:
        yield from zip(sources, prompts, strict=True)
    finally:
        prompts.close()


def prompt_or_error(source: Path | bytes, *, hidden: bool) -> PromptOrError:
    """Return what `read_embedded_prompt` returns, or the `ImageRejected` that it raises."""
    try:
        return read_embedded_prompt(source, hidden=hidden)
    except ImageRejected as error:
        return error
