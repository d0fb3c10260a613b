"""The progress that says nothing, for callers without a terminal."""

from __future__ import annotations

from imprompt.core.protocols import ProgressTask


class Silent:
    """Satisfies `imprompt.core.protocols.Progress` and `ProgressTask` without a trace."""

    def start(self, label: str, total: int | None) -> ProgressTask:
        return self

    def advance(self, n: int) -> None:
        return None

    def __enter__(self) -> ProgressTask:
        return self

    def __exit__(self, *exc: object) -> None:
        return None
