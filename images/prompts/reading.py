"""The prompts of many files at once, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from imprompt.core.errors import ImageRejected
from imprompt.images.metadata.hidden_texts import read_hidden_prompt
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt

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
    """Each path, in order, with its prompt, None where it carries none, or the error that it cannot be read with.

    Args:
        hidden: also look into the pixels of pictures with transparency; this decodes them.
    """
    waiting: deque[tuple[Path, Future[Found]]] = deque()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="prompts")
    try:
        for path in paths:
            waiting.append((path, pool.submit(_read, path, hidden=hidden)))
            if len(waiting) > _AHEAD:
                path, future = waiting.popleft()
                yield path, future.result()
        while waiting:
            path, future = waiting.popleft()
            yield path, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(path: Path, *, hidden: bool) -> Found:
    try:
        found = read_embedded_prompt(path)
        return read_hidden_prompt(path) if hidden and found is None else found
    except ImageRejected as error:
        return error
