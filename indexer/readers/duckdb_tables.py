"""Corpora in DuckDB files: one table, opened for reading only, in the order of its row ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import CorpusError, first_line
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.columns import (
    EXTRA_COLUMNS,
    cached,
    choose_column,
    file_digest,
    judge_cells,
)
from imprompt.indexer.readers.rows import Row, StreamedSource
from imprompt.store.databases import STORED, Setting, read_database
from imprompt.store.duckdb_import import import_duckdb

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RANGE_ROWS = 4096
_SETTINGS: dict[str, Setting] = {"threads": "1", "memory_limit": "256MB"}
"""A corpus is a stranger's file: its share of the memory is bounded."""

Columns = dict[str, str]


def duckdb_source(path: Path, *, part: str | None, column: str | None) -> StreamedSource:
    """Read a table of a DuckDB file; `source_key` is "row N", DuckDB's row id.

    Args:
        path: of the file.
        part: "TABLE" or "TABLE.COLUMN", with "SCHEMA." before it if it is not `main`; None takes
            the only table.
        column: of the prompts, if `part` does not name it.

    Raises:
        CorpusError: not a DuckDB file, open for writing elsewhere, or no such table or text column.
    """
    with _open_database(path) as connection:
        tables = _tables(connection)
    table, named = _choose_table(path, part, tables)
    columns = tables[table]
    texts = [name for name, kind in columns.items() if kind == "VARCHAR"]
    chosen = choose_column(path, named or column, list(columns), texts=texts)
    extra = [name for name in EXTRA_COLUMNS if name in columns and name != chosen]
    source = as_utf8(path.name)
    names = (STORED, *(table if "." in table else f"main.{table}").split(".", 1))
    relation = ".".join(map(_identifier, names))
    selected = ", ".join(map(_identifier, (chosen, *extra)))

    def rows(start: int) -> Iterator[Row]:
        with _open_database(path) as connection:
            for row_id, prompt, *cells in _cells(connection, relation, selected, start):
                values = dict(zip(extra, cells, strict=True))
                yield judge_cells(prompt, values, source=source, key=f"row {row_id}")

    def count() -> int:
        with _open_database(path) as connection:
            return _number(connection, f"SELECT count(*) FROM {relation}")

    log = path.with_name(f"{path.name}.wal")

    def digest() -> str:
        files = [path, *([log] if log.exists() else [])]
        return "".join(file_digest(file, "duckdb", f"{table}.{chosen}") for file in files)

    return StreamedSource(source, False, rows, cached([path, log], digest), count)


def _cells(
    connection: DuckDBPyConnection, relation: str, selected: str, start: int
) -> Iterator[tuple[Any, ...]]:
    """Yield (row id, cells …) of each row from `start` on by row id, reading a range at a time."""
    end = _number(connection, f"SELECT coalesce(max(rowid) + 1, 0) FROM {relation}")
    in_range = f"FROM {relation} WHERE rowid >= ? AND rowid < ?"
    for begin in range(0, end, _RANGE_ROWS):
        bounds = [begin, begin + _RANGE_ROWS]
        if start and start >= (held := _number(connection, f"SELECT count(*) {in_range}", bounds)):
            start -= held
            continue
        query = f"SELECT rowid, {selected} {in_range} ORDER BY rowid"
        yield from connection.execute(query, bounds).fetchall()[start:]
        start = 0


def _number(connection: DuckDBPyConnection, query: str, values: list[int] | None = None) -> int:
    return int(connection.execute(query, values or []).fetchall()[0][0])


def _tables(connection: DuckDBPyConnection) -> dict[str, Columns]:
    """Return the column types of each table, named with its schema unless that is `main`."""
    tables: dict[str, Columns] = {}
    query = """SELECT schema_name, table_name, column_name, data_type
               FROM duckdb_columns()
               JOIN duckdb_tables() USING (database_name, schema_name, table_name)
               WHERE NOT temporary AND database_name = ?
               ORDER BY schema_name, table_name, column_index"""
    for schema, table, column, kind in connection.execute(query, [STORED]).fetchall():
        tables.setdefault(f"{schema}.{table}" if schema != "main" else table, {})[column] = kind
    return tables


def _choose_table(
    path: Path, part: str | None, tables: Mapping[str, Columns]
) -> tuple[str, str | None]:
    """Return the table, and the column if `part` names one."""
    if part is None and len(tables) == 1:
        return next(iter(tables)), None
    if part is not None:
        table, _, column = part.rpartition(".")
        if part in tables:
            return part, None
        if table in tables:
            return table, column
    problem = "has more than one table" if part is None else f"has no table {part!r}"
    raise CorpusError(
        f"{path} {problem}; there are: {', '.join(tables) or 'none'}.",
        path=path,
        hint=f"Name one, as in {path}#TABLE.COLUMN.",
    )


def _identifier(name: str) -> str:
    """Return a name of SQL in quotes."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


@contextmanager
def _open_database(path: Path) -> Iterator[DuckDBPyConnection]:
    """Open a read-only connection and map DuckDB's errors inside the block to `CorpusError`."""
    duckdb = import_duckdb()
    try:
        with read_database(path, _SETTINGS) as connection:
            yield connection
    except duckdb.Error as error:
        raise CorpusError(
            f"{path} cannot be read as DuckDB: {first_line(error)}.",
            path=path,
            hint="Close the program that writes it, or export the table: "
            "COPY t TO 'prompts.parquet'.",
        ) from error
