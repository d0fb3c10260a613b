"""Where answers, notes and progress go: answers to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import ImpromptError, PartialFailure
from imprompt.core.text import as_utf8, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from imprompt.core.protocols import Progress


@dataclass(frozen=True, slots=True)
class Output:
    """How one command speaks.

    `json` replaces tables by one object a line; `quiet` silences notes and progress.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    failures: list[tuple[str, ImpromptError]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """One line for a person, on standard error."""
        if not self.quiet:
            _console(stderr=True).print(
                printable(text), highlight=False, markup=False, soft_wrap=True
            )

    def detail(self, text: str) -> None:
        """A note that only `--verbose` shows."""
        if self.verbose:
            self.note(text)

    def line(self, value: Any) -> None:
        """One JSON object (any value msgspec can write) on a line of standard output."""
        import msgspec

        try:
            encoded = msgspec.json.encode(value)
        except UnicodeEncodeError:  # a file's name that is no UTF-8
            encoded = msgspec.json.encode(_as_utf8(msgspec.to_builtins(value)))
        sys.stdout.write(encoded.decode("utf-8") + "\n")
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Plain text on standard output, never read as markup or as a terminal's control characters."""
        _console().print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def table(self, table: Table) -> None:
        _console().print(table)

    def fail(self, item: str, error: ImpromptError, *, key: str = "image") -> None:
        """Remember that `item` of a batch failed;

        `close` lists it. `key` says in JSON what the item is.
        """
        self.failures.append((item, error))
        if self.json:
            self.line(
                {
                    key: item,
                    "error": {"kind": error.kind, "message": error.message, "hint": error.hint},
                }
            )

    def close(self, *, total: int, done: str = "were answered") -> None:
        """End a batch of `total` items; `done` is what became of the good ones.

        Raises:
            ImpromptError: the only item's own error.
            PartialFailure: some of several items failed; each was listed.
        """
        if not self.failures:
            return
        if total == 1:
            raise self.failures[0][1]
        console = _console(stderr=True)
        console.print(f"{len(self.failures)} of {total} failed:", markup=False, highlight=False)
        for _, error in self.failures:
            console.print(
                f"  {printable(str(error))}", markup=False, highlight=False, soft_wrap=True
            )
        raise PartialFailure(f"{total - len(self.failures)} of {total} {done}.")

    def progress(self) -> Progress:
        """Bars with rate and time left on a terminal; silence elsewhere and with `--quiet`."""
        if self.quiet or not sys.stderr.isatty():
            from imprompt.core.progress import Silent

            return Silent()
        from imprompt.commands.progress_bars import Bars

        return Bars(_console(stderr=True))


def _as_utf8(value: Any) -> Any:
    if isinstance(value, str):
        return as_utf8(value)
    if isinstance(value, dict):
        return {_as_utf8(key): _as_utf8(item) for key, item in value.items()}
    return [_as_utf8(item) for item in value] if isinstance(value, list | tuple) else value


def grid(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> Table:
    """A table of plain text; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=printable(title) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        title_style="bold",
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def funnel(counts: Mapping[str, int]) -> Table:
    """What became of a corpus's rows: read first, then each reason for leaving one out, then kept."""
    order = ["read", *sorted(set(counts) - {"read", "kept"}), "kept"]
    return grid(
        "Rows", ["", "rows"], [(name, f"{counts.get(name, 0):,}") for name in order], right=["rows"]
    )


def size_text(size_bytes: int) -> str:
    """A size that a person can read: 1.5 MB."""
    from rich.filesize import decimal

    return decimal(size_bytes)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)
