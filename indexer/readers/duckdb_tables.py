"""Corpora in DuckDB files: one table, opened for reading only, in the order of its row ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import CorpusError, first_line
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.columns import BESIDE_COLUMNS, choose_column, file_digest, remembered
from imprompt.indexer.readers.parquet_tables import judge_cells
from imprompt.indexer.readers.rows import Row, StreamedSource
from imprompt.store.databases import STORED, Setting, read_database

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RANGE_ROWS = 4096
_SETTINGS: dict[str, Setting] = {"threads": "1", "memory_limit": "256MB"}
"""A corpus is somebody else's file: it gets a bounded share of the memory."""

Columns = dict[str, str]


def duckdb_source(path: Path, *, part: str | None, column: str | None) -> StreamedSource:
    """A table of a DuckDB file; `source_key` is "row N", DuckDB's own row id.

    Args:
        path: of the file.
        part: "TABLE" or "TABLE.COLUMN" (with "SCHEMA." before it where it is not `main`); None
            takes the only table.
        column: of the prompts, where `part` does not name it.

    Raises:
        CorpusError: no DuckDB file, written by another process, or no such table or column of text.
    """
    with _opened(path) as connection:
        tables = _tables(connection)
    table, named = _choose_table(path, part, tables)
    columns = tables[table]
    texts = [name for name, kind in columns.items() if kind == "VARCHAR"]
    chosen = choose_column(path, named or column, list(columns), texts=texts)
    beside = [name for name in BESIDE_COLUMNS if name in columns and name != chosen]
    place = ".".join(
        _quoted(word)
        for word in (STORED, *(table if "." in table else f"main.{table}").split(".", 1))
    )
    selected = ", ".join(_quoted(name) for name in (chosen, *beside))

    def rows(start: int) -> Iterator[Row]:
        with _opened(path) as connection:
            for row_id, *cells in _cells(connection, place, selected, start):
                yield judge_cells(
                    tuple(cells), beside, source=as_utf8(path.name), key=f"row {row_id}"
                )

    def count() -> int:
        with _opened(path) as connection:
            return _number(connection, f"SELECT count(*) FROM {place}")

    log = path.with_name(f"{path.name}.wal")

    def digest() -> str:
        files = [path, *([log] if log.exists() else [])]
        return "".join(file_digest(file, "duckdb", f"{table}.{chosen}") for file in files)

    return StreamedSource(as_utf8(path.name), False, rows, remembered([path, log], digest), count)


def _cells(
    connection: DuckDBPyConnection, place: str, selected: str, start: int
) -> Iterator[tuple[Any, ...]]:
    """(row id, cells …) of each row from `start` on, in the order of the row ids, a range of them at a time."""
    end = _number(connection, f"SELECT coalesce(max(rowid) + 1, 0) FROM {place}")
    for begin in range(0, end, _RANGE_ROWS):
        here = [begin, begin + _RANGE_ROWS]
        if start and start >= (
            held := _number(
                connection, f"SELECT count(*) FROM {place} WHERE rowid >= ? AND rowid < ?", here
            )
        ):
            start -= held
            continue
        query = (
            f"SELECT rowid, {selected} FROM {place} WHERE rowid >= ? AND rowid < ? ORDER BY rowid"
        )
        yield from connection.execute(query, here).fetchall()[start:]
        start = 0


def _number(connection: DuckDBPyConnection, query: str, values: list[int] | None = None) -> int:
    return int(connection.execute(query, values or []).fetchall()[0][0])


def _tables(connection: DuckDBPyConnection) -> dict[str, Columns]:
    """The types of each table's columns; a table of another schema than `main` has that before its name."""
    found: dict[str, Columns] = {}
    query = """SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables()
               USING (database_name, schema_name, table_name) WHERE NOT temporary AND database_name = ?
               ORDER BY schema_name, table_name, column_index"""
    for schema, table, column, kind in connection.execute(query, [STORED]).fetchall():
        found.setdefault(f"{schema}.{table}" if schema != "main" else table, {})[column] = kind
    return found


def _choose_table(
    path: Path, part: str | None, tables: Mapping[str, Columns]
) -> tuple[str, str | None]:
    """The table, and the column where `part` names one."""
    if part is None and len(tables) == 1:
        return next(iter(tables)), None
    if part is not None:
        table, _, column = part.rpartition(".")
        if part in tables:
            return part, None
        if table in tables:
            return table, column
    there = ", ".join(tables) or "none"
    asked = "has more than one table" if part is None else f"has no table {part!r}"
    raise CorpusError(
        f"{path} {asked}; there are: {there}.",
        path=path,
        hint=f"Name one, as in {path}#TABLE.COLUMN.",
    )


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


@contextmanager
def _opened(path: Path) -> Iterator[DuckDBPyConnection]:
    """A read-only connection, and whatever DuckDB refuses inside the block as `CorpusError`."""
    import duckdb

    try:
        with read_database(path, _SETTINGS) as connection:
            yield connection
    except duckdb.Error as error:
        raise CorpusError(
            f"{path} cannot be read as DuckDB: {first_line(error)}.",
            path=path,
            hint="Close the program that writes it, or export the table: COPY t TO 'prompts.parquet'.",
        ) from error
