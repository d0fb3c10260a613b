"""Progress that reports nothing, for callers without a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the protocols import numpy, which `--help` does without
    from imprompt.core.protocols import ProgressTask


class Silent:
    """A `Progress`, and a `ProgressTask`, that reports nothing."""

    def start(self, label: str, total: int | None) -> ProgressTask:
        return self

    def advance(self, n: int) -> None:
        return None

    def __enter__(self) -> ProgressTask:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


SILENT = Silent()
