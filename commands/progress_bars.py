"""Progress bars on a terminal.

In a file of its own because rich's bars take a tenth of a second to import, which only a terminal
needs.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from imprompt.core.protocols import ProgressTask


class Rate(ProgressColumn):
    """Items per second over the last seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class Bars:
    """A `Progress` that draws one bar for the running stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, label: str, total: int | None) -> ProgressTask:
        return _Bar(self._console, label, total)


class _Bar:
    def __init__(self, console: Console, label: str, total: int | None) -> None:
        counted = (
            (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
            if total
            else (Rate(),)
        )
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            *counted,
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # or rich would send a file's lines to the bars
        )
        self._task = self._bars.add_task(label, total=total)

    def advance(self, n: int) -> None:
        self._bars.advance(self._task, n)

    def __enter__(self) -> ProgressTask:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()
