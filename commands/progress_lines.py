"""Progress where there is no terminal: now and then a line on standard error, as a log keeps it.

Apart from `progress_bars`, whose import takes a tenth of a second.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from imprompt.core.text import duration_text

if TYPE_CHECKING:
    from imprompt.core.protocols import ProgressTask

EVERY_S = 30.0
"""Seconds from one line to the next, at least."""
_AT_ONCE_S = 1.0
"""What is reported so soon after a stage's start was done before: by the run that it resumes."""
_RATE_LINES = 10
"""The rate is that of the time since so many lines ago."""


class Lines:
    """A `Progress` that prints what is done, the rate and the time left.

    A stage that reports nothing gets its line too. The first line of a run comes after `every_s`
    seconds, so that a short run prints none.

    Args:
        say: prints one line; an `OSError` of it is ignored.
        clock: returns seconds, as `time.monotonic` does.
        every_s: seconds from one line to the next, whatever the stage.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = EVERY_S,
    ) -> None:
        self._say = say
        self._clock = clock
        self._every_s = every_s
        self._lock = threading.Lock()
        self._last_s = clock()

    def start(self, label: str, total: int | None) -> ProgressTask:
        return _Stage(self, label, total)

    def now(self) -> float:
        """Return the seconds of the clock."""
        return self._clock()

    def until_due(self) -> float:
        """Return the seconds until the next line may be printed, at most 0 if it may now."""
        return self._last_s + self._every_s - self._clock()

    def say_if_due(self, line: Callable[[float], str]) -> None:
        """Print what `line` returns for the time, unless the last line is too recent."""
        with self._lock:
            now = self._clock()
            if now - self._last_s < self._every_s:
                return
            self._last_s = now
            with suppress(OSError, ValueError):  # who read standard error has gone, or it is closed
                self._say(line(now))


class _Stage:
    """One stage; a thread looks after it while it reports nothing."""

    def __init__(self, lines: Lines, label: str, total: int | None) -> None:
        self._lines = lines
        self._label = label
        self._total = total or None
        self._done = 0
        self._begun_s = lines.now()
        self._marks = deque([(self._begun_s, 0)], maxlen=_RATE_LINES)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def advance(self, n: int) -> None:
        self._done += n
        now = self._lines.now()
        if now - self._begun_s < _AT_ONCE_S:
            self._marks[0] = (now, self._done)
        self._lines.say_if_due(self._line)

    def __enter__(self) -> ProgressTask:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(max(self._lines.until_due(), 0.01)):
            self._lines.say_if_due(self._line)

    def _line(self, now: float) -> str:
        since, before = self._marks[0]
        rate = (self._done - before) / (now - since) if now > since else 0.0
        self._marks.append((now, self._done))
        parts = []
        if self._total:
            parts.append(f"{self._done:,} of {self._total:,}")
        elif self._done:
            parts.append(f"{self._done:,}")
        if rate:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if rate and self._total and self._done < self._total:
            parts.append(f"{duration_text((self._total - self._done) / rate)} left")
        else:
            parts.append(f"{duration_text(now - self._begun_s)} so far")
        return f"{self._label}: {', '.join(parts)}"
