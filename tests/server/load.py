"""Clients that ask all the time, and keep what they were told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, dict[str, Any]]
"""Status and JSON of a response."""


def until(check: Callable[[], bool], *, seconds: float = 20) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Load:
    """Answers to the index's own prompts as questions; each is its nearest prompt (cosine 1)."""

    right: list[str] = field(default_factory=list)
    """The versions that answered rightly."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Status and kind of the problems."""
    wrong: list[object] = field(default_factory=list)
    """Anything else: a wrong answer, a response that is none, an exception."""

    def note(self, text: str, answer: Answer) -> None:
        status, value = answer
        if status != 200:
            self.refused.append((status, str(value["kind"])))
            return
        (result,) = value["results"]
        best = result["nearest"][0]
        if best["prompt"] == text and abs(best["score"] - 1) < 1e-3:
            self.right.append(result["version"])
        else:
            self.wrong.append(best)

    def goes_on(self, n: int = 5) -> None:
        """Wait for further right answers."""
        had = len(self.right)
        until(lambda: len(self.right) >= had + n or bool(self.wrong))

    def is_refused(self, n: int = 5) -> None:
        """Wait for further problems."""
        had = len(self.refused)
        until(lambda: len(self.refused) >= had + n or bool(self.wrong))


@contextmanager
def asking(
    ask: Callable[[str], Answer], texts: Sequence[str], *, clients: int = 3
) -> Iterator[Load]:
    """Let several clients ask for the nearest prompt of each text until the block ends."""
    load, stop = Load(), threading.Event()

    def client(number: int) -> None:
        place = number
        while not stop.is_set():
            text = texts[place % len(texts)]
            place += 1
            try:
                load.note(text, ask(text))
            except Exception as error:  # noqa: BLE001 -- whatever it is, the test has to hear of it
                load.wrong.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        load.goes_on()
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()
