"""What a command prints: answers to standard output, notes and progress to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imprompt.core.errors import ImpromptError, PartialFailure
from imprompt.core.progress import SILENT
from imprompt.core.text import as_utf8, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from imprompt.core.protocols import Progress


@dataclass(slots=True, kw_only=True)
class Output:
    """How one command prints: the options `--json`, `--quiet` and `--verbose` of its verb.

    `failures` are the items of a batch that failed, for `close` to list.
    """

    json: Annotated[
        bool, typer.Option("--json", help="Print JSON to standard output, one object per line.")
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only print results and errors.")] = (
        False
    )
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Print more; show the traceback of unexpected errors."
        ),
    ] = False
    failures: list[tuple[str, ImpromptError]] = field(default_factory=list, init=False)

    def note(self, text: str) -> None:
        """Print one line to standard error, unless `--quiet` is set."""
        if not self.quiet:
            _print(_console(stderr=True), text)

    def detail(self, text: str) -> None:
        """Print a note if `--verbose` is set."""
        if self.verbose:
            self.note(text)

    def line(self, value: Any) -> None:
        """Print a value that msgspec can write, as one line of JSON."""
        import msgspec

        try:
            encoded = msgspec.json.encode(value)
        except UnicodeEncodeError:  # a file name that is not UTF-8
            encoded = msgspec.json.encode(_as_utf8(msgspec.to_builtins(value)))
        sys.stdout.write(encoded.decode("utf-8") + "\n")
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Print plain text; markup and control characters in it have no effect."""
        _print(_console(), text)

    def table(self, table: Table) -> None:
        """Print a table made by `grid`."""
        _console().print(table)

    def fail(self, item: str, error: ImpromptError, *, key: str = "image") -> None:
        """Record that `item` of a batch failed; in JSON, `key` says what the item is."""
        self.failures.append((item, error))
        if self.json:
            described = {"kind": error.kind, "message": error.message, "hint": error.hint}
            self.line({key: item, "error": described})

    def close(self, *, total: int, outcome: str = "were answered") -> None:
        """End a batch of `total` items; `outcome` is what happened to those that did not fail.

        Raises:
            ImpromptError: the error of the only item.
            PartialFailure: some of several items failed; each is listed.
        """
        if not self.failures:
            return
        if total == 1:
            raise self.failures[0][1]
        console = _console(stderr=True)
        _print(console, f"{len(self.failures)} of {total} failed:")
        for _, error in self.failures:
            _print(console, f"  {error}")
        raise PartialFailure(f"{total - len(self.failures)} of {total} {outcome}.")

    def progress(self, *, answering: bool = False) -> Progress:
        """Return progress bars on a terminal, lines elsewhere; with `--quiet`, silence.

        Args:
            answering: answers are printed meanwhile. On a terminal these are the progress, and bars
                would be drawn over them.
        """
        if self.quiet:
            return SILENT
        if not sys.stderr.isatty():
            from imprompt.commands.progress_lines import Lines

            return Lines(self.note)
        if answering and sys.stdout.isatty():
            return SILENT
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
    """Return a table of plain text; the columns named in `right` are right-aligned."""
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
    """Return the row counts of a corpus: read, then each reason for dropping rows, then kept."""
    order = ["read", *sorted(set(counts) - {"read", "kept"}), "kept"]
    rows = [(name, f"{counts.get(name, 0):,}") for name in order]
    return grid("Rows", ["", "rows"], rows, right=["rows"])


def _print(console: Console, text: str) -> None:
    # Not even ":cat:" is markup.
    console.print(printable(text), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)
