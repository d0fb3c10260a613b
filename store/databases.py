"""Every DuckDB connection of imprompt: locked to named files, without network or extensions.

A DuckDB file may come from anybody. A table in it may turn out to be a view that reads other files
or asks a server, and a function a macro. So a foreign file is attached to an empty database: its
macros are hidden under a name that no statement here uses, and the settings hold before it is
opened. Its content is checked before a row is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.store.duckdb_import import import_duckdb

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Setting = str | bool | int | float | list[str]

STORED = "stored"
"""The name under which `read_database` attaches a file; write tables as `stored.main.NAME`."""

_SAFE: dict[str, Setting] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_SUFFIXES = (
    "",
    ".wal",
    ".wal.recovery",
    ".wal.checkpoint",
    ".tmp",
    ".tmp.wal",
    ".tmp.wal.recovery",
    ".tmp.wal.checkpoint",
)
"""The endings of the files that DuckDB keeps for a database, and for one that is not whole yet."""


class UnexpectedContent(Exception):
    """A database holds anything but the expected tables; the text names it in one phrase."""


def scratch() -> DuckDBPyConnection:
    """Return an empty database in memory that reaches no file."""
    duckdb = import_duckdb()
    return _closed(duckdb.connect(":memory:", config={**_SAFE}), files=[])


def read_database(
    path: Path, settings: Mapping[str, Setting], *, files: Sequence[Path] = ()
) -> DuckDBPyConnection:
    """Return a DuckDB file, which may come from anybody, attached for reading as `stored`.

    Args:
        settings: DuckDB's, such as a bound on memory.
        files: trusted databases that may be attached too, as NAME or NAME.tmp.

    Raises:
        duckdb.Error: it is not a DuckDB file, or another process writes it.
    """
    duckdb = import_duckdb()
    connection: DuckDBPyConnection = duckdb.connect(":memory:", config={**_SAFE, **settings})
    try:
        _closed(
            connection,
            files=[path, *files],
            last=f"ATTACH {quoted(path)} AS {STORED} (READ_ONLY, TYPE duckdb);",
        )
    except BaseException:
        connection.close()
        raise
    return connection


def write_database(
    path: Path, settings: Mapping[str, Setting], *, files: Sequence[Path] = ()
) -> DuckDBPyConnection:
    """Return a trusted database to write into.

    Args:
        settings: DuckDB's, such as a bound on memory.
        files: further databases that may be attached, or written as NAME.tmp and then renamed.

    Raises:
        duckdb.Error: it is not a DuckDB file.
    """
    duckdb = import_duckdb()
    connection = duckdb.connect(str(path.absolute()), config={**_SAFE, **settings})
    try:
        return _closed(connection, files=files)
    except BaseException:
        connection.close()
        raise


def sniffed_delimiter(text: str) -> str | None:
    """Return the delimiter that DuckDB finds in a table in text form; None if it finds none."""
    duckdb = import_duckdb()
    with tempfile.TemporaryDirectory(prefix="imprompt-") as folder:
        path = Path(folder) / "head.csv"
        path.write_text(text, "utf-8")
        with _closed(duckdb.connect(":memory:", config={**_SAFE}), files=[path]) as connection:
            try:
                found = connection.execute(
                    "SELECT Delimiter FROM sniff_csv(?)", [str(path)]
                ).fetchone()
            except duckdb.Error:
                return None
    return str(found[0]) if found else None


def check_stored_table(
    connection: DuckDBPyConnection, table: str, columns: Mapping[str, str]
) -> None:
    """Check that `stored.main.TABLE` is a base table of these columns (name: type), in this order.

    The rest of the file is ignored: no statement here names it. To look at it would take 10 ms, a
    fifth of opening an index; `check_tables` does.

    Raises:
        UnexpectedContent: it is not a base table, or has other columns, one that is computed, a
            default, or a constraint.
        duckdb.Error: the file is damaged.
    """
    duckdb = import_duckdb()
    name = f"{STORED}.main.{table}"
    try:
        stored = connection.execute("FROM pragma_table_info(?)", [name]).fetchall()
        # Only a base table has a rowid without a column of that name.
        connection.execute(f"SELECT rowid FROM {name} LIMIT 0").fetchall()  # noqa: S608 constants
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        raise UnexpectedContent(f"it holds no table {table}") from error
    wanted = [(name, kind, False, None, False) for name, kind in columns.items()]
    if [tuple(column[1:]) for column in stored] != wanted:
        raise UnexpectedContent(f"its table {table} has another form than imprompt writes")


def check_tables(
    connection: DuckDBPyConnection, database: str, known: Mapping[str, Mapping[str, str]]
) -> None:
    """Check that an attached database holds base tables of the known forms alone.

    Args:
        database: the name that it was attached as.
        known: the columns (name: type), in order, of each table that may be there.

    Raises:
        UnexpectedContent: there is a view, another table or schema, or a table of another form (a
            column that is computed, a default, a constraint).
        duckdb.Error: the file is damaged.
    """
    strays = (
        "SELECT 'view', view_name FROM duckdb_views() "
        "WHERE NOT internal AND database_name = $1 UNION ALL "
        "SELECT 'schema', schema_name FROM duckdb_schemas() "
        "WHERE NOT internal AND database_name = $1 LIMIT 1"
    )
    for kind, name in connection.execute(strays, [database]).fetchall():
        raise UnexpectedContent(f"it holds the {kind} {name[:60]!r}")
    tables = (
        "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE database_name = $1 LIMIT 16"
    )
    for schema, name, statement in connection.execute(tables, [database]).fetchall():
        columns = known.get(name) if schema == "main" else None
        if columns is None or _plain(statement) != _plain(_create(name, columns)):
            raise UnexpectedContent(
                f"it holds a table {name[:60]!r} of another form than imprompt writes"
            )


def check_no_macros(connection: DuckDBPyConnection, database: str) -> None:
    """Raise `UnexpectedContent` if a database has macros, which hide DuckDB's functions."""
    statement = (
        "SELECT function_name FROM duckdb_functions() "
        "WHERE NOT internal AND database_name = $1 LIMIT 1"
    )
    for (name,) in connection.execute(statement, [database]).fetchall():
        raise UnexpectedContent(f"it holds the macro {name[:60]!r}")


def quoted(path: Path) -> str:
    """Return a path as a string literal of SQL."""
    return "'" + str(path.absolute()).replace("'", "''") + "'"


def _closed(
    connection: DuckDBPyConnection, *, files: Sequence[Path], last: str = ""
) -> DuckDBPyConnection:
    """Return the connection without access to any other file, and with its settings locked.

    The statement `last` is executed before they are locked.
    """
    allowed = ", ".join(quoted(Path(f"{file}{suffix}")) for file in files for suffix in _SUFFIXES)
    closed = f"SET allowed_paths = [{allowed}]; SET enable_external_access = false;"
    connection.execute(f"{closed} {last} SET lock_configuration = true")
    return connection


def _create(name: str, columns: Mapping[str, str]) -> str:
    listed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    return f"CREATE TABLE {name}({listed});"


def _plain(statement: str) -> str:
    """Drop white space and the quotes around names, which differ between versions of DuckDB."""
    return "".join(statement.replace('"', "").split())
