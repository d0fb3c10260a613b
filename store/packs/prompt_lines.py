"""Prompts as lines of JSON: what a pack holds of them, in place of a database file.

A line is plain data, the same for the same rows, and half as long as a row of DuckDB's file when
compressed. What follows from other fields is left out: row id, prompt key, and texts that repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from imprompt.core.errors import Checksum
from imprompt.core.values import Parameters, prompt_key
from imprompt.store.database_files import duckdb_errors, new_database
from imprompt.store.generation_parameters import PARAMETER_COLUMNS, read_parameters, settings_text
from imprompt.store.layout import SPILLED, VERIFY
from imprompt.store.prompts import COLUMNS, DuckPrompts, duckdb_config

if TYPE_CHECKING:
    import pyarrow
    from duckdb import DuckDBPyConnection

LONGEST_LINE = 4 << 20
_AT_ONCE = 8_192
_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
_TABLES = {"prompts": COLUMNS, "parameters": PARAMETER_COLUMNS}


class PromptLine(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A row; its line's number, from 0, is the row id.

    `embedded_text` is None where it equals `text`, `group_id` None where it is the row id.
    `negative` and `settings` are the generation parameters; `settings` is None without any.
    """

    text: str
    embedded_text: str | None = None
    source: str = ""
    source_key: str = ""
    n_submitted: _Number = 1
    group_id: _Number | None = None
    n_duplicates: _Number = 0
    negative: str = ""
    settings: dict[str, str] | None = None


def lines_of(prompts: DuckPrompts, *, sources: bool = True) -> Iterator[PromptLine]:
    """Yield the rows of a version, in their order.

    Args:
        sources: whether with source, source key and generation parameters.

    Raises:
        Checksum: the file is damaged, or a row says of itself what does not follow from it.
    """
    parameters = prompts.parameter_rows() if sources else iter(())
    found = next(parameters, None)
    for row in prompts.prompt_rows():
        row_id, key, text, embedded, source, source_key, n_submitted, group_id, n_duplicates = row
        negative, settings = "", None
        if found is not None and found[0] == row_id:
            read = read_parameters(found[1], found[2], path=prompts.path)
            negative, settings = read.negative, read.settings
            found = next(parameters, None)
        line = PromptLine(
            text=text,
            embedded_text=None if embedded == text else embedded,
            source=source if sources else "",
            source_key=source_key if sources else "",
            n_submitted=n_submitted,
            group_id=None if group_id == row_id else group_id,
            n_duplicates=n_duplicates,
            negative=negative,
            settings=settings,
        )
        if prompt_key(embedded) != key:
            raise Checksum(
                f"{prompts.path}: row {row_id} is not the prompt that its key says.",
                path=prompts.path,
                hint=VERIFY,
            )
        yield line


def read_lines(chunks: Iterable[bytes], *, path: Path, most_rows: int) -> Iterator[PromptLine]:
    """Yield the rows in the bytes of a pack.

    Raises:
        Checksum: a line is too long, or is none, or there are more than `most_rows`.
    """
    decoder, pending, number = msgspec.json.Decoder(PromptLine), b"", 0
    for chunk in chunks:
        *whole, pending = (pending + chunk).split(b"\n")
        if number + len(whole) > most_rows:
            raise _not_a_line(path, most_rows, f"its manifest says {most_rows:,} rows")
        for line in whole:
            yield _decoded(decoder, line, number, path)
            number += 1
        if len(pending) > LONGEST_LINE:
            raise _not_a_line(path, number, f"it has more than {LONGEST_LINE >> 20} MiB")
    if pending:
        raise _not_a_line(path, number, "it is cut off")


def _decoded(
    decoder: msgspec.json.Decoder[PromptLine], line: bytes, number: int, path: Path
) -> PromptLine:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _not_a_line(path, number, str(error)) from error


def _not_a_line(path: Path, number: int, reason: str) -> Checksum:
    return Checksum(
        f"{path}: line {number + 1} of its prompts cannot be read: {reason}.", path=path
    )


def write_prompts(target: Path, lines: Iterable[PromptLine]) -> None:
    """Write the file `target`, a `prompts.duckdb`; it appears whole or not at all.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    config = {**duckdb_config(), "temp_directory": str(target.parent / SPILLED)}
    with duckdb_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_database(target, config) as connection:
            for start, some in _batches(lines):
                rows = [row_of(row_id, line) for row_id, line in enumerate(some, start)]
                _insert(connection, "prompts", rows)
                found = (_parameters(row_id, line) for row_id, line in enumerate(some, start))
                _insert(connection, "parameters", [row for row in found if row is not None])


def _insert(connection: DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Append rows to a table, which is made with its first row."""
    if not rows:
        return
    columns = _TABLES[table]
    listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table}({listed})")
    connection.register("given", _arrow(columns, rows))
    connection.execute(f"INSERT INTO {table} SELECT * FROM given")  # noqa: S608 constants
    connection.unregister("given")


def _arrow(columns: dict[str, str], rows: list[tuple[Any, ...]]) -> pyarrow.Table:
    import pyarrow

    kinds = {"BIGINT": pyarrow.int64(), "VARCHAR": pyarrow.string()}
    return pyarrow.table(
        {
            name: pyarrow.array(values, kinds[kind])
            for (name, kind), values in zip(columns.items(), zip(*rows, strict=True), strict=True)
        }
    )


def _batches(lines: Iterable[PromptLine]) -> Iterator[tuple[int, list[PromptLine]]]:
    """Yield (row id of the first, some lines)."""
    start, some = 0, []
    for line in lines:
        some.append(line)
        if len(some) == _AT_ONCE:
            yield start, some
            start, some = start + len(some), []
    if some:
        yield start, some


def row_of(row_id: int, line: PromptLine) -> tuple[Any, ...]:
    """Return the columns of `COLUMNS`."""
    embedded = line.text if line.embedded_text is None else line.embedded_text
    return (
        row_id,
        prompt_key(embedded),
        line.text,
        embedded,
        line.source,
        line.source_key,
        line.n_submitted,
        row_id if line.group_id is None else line.group_id,
        line.n_duplicates,
    )


def _parameters(row_id: int, line: PromptLine) -> tuple[int, str, str] | None:
    if line.settings is None:
        return None
    return row_id, line.negative, settings_text(Parameters(line.negative, line.settings))
