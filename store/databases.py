"""Every DuckDB connection of imprompt: no file but those named here, no network, no extension, nothing that can be set anew.

A DuckDB file may come from anybody, and what is called a table in it may be a view that reads other
files or asks a server, and what looks like a function a macro. So a foreign file is attached to an
empty database: its macros stand behind a name that no statement here says, and the settings hold
before it is opened. What it must hold is looked up before a row is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Setting = str | bool | int | float | list[str]

STORED = "stored"
"""What `read_database` calls the file that it attaches; write tables as `stored.main.NAME`."""

_SAFE: dict[str, Setting] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_BESIDE = (
    "",
    ".wal",
    ".wal.recovery",
    ".wal.checkpoint",
    ".tmp",
    ".tmp.wal",
    ".tmp.wal.recovery",
    ".tmp.wal.checkpoint",
)
"""What DuckDB itself puts behind the name of a database, and what stands for one that is not whole yet."""


class UnexpectedContent(Exception):
    """A database holds something else than what its user knows; the text says what, in one phrase."""


def scratch() -> DuckDBPyConnection:
    """An empty database in memory that reaches no file."""
    import duckdb

    return _closed(duckdb.connect(":memory:", config={**_SAFE}), files=[])


def read_database(
    path: Path, settings: Mapping[str, Setting], *, files: Sequence[Path] = ()
) -> DuckDBPyConnection:
    """A DuckDB file of anybody's, attached for reading as `stored`.

    Args:
        settings: DuckDB's, such as a bound on memory.
        files: databases of our own that may be attached, too, as NAME or NAME.tmp.

    Raises:
        duckdb.Error: it is no DuckDB file, or another process writes it.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config={**_SAFE, **settings})
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
    """A database of our own to write into.

    Args:
        settings: DuckDB's, such as a bound on memory.
        files: further databases that may be attached, or written as NAME.tmp before they get their
            name.

    Raises:
        duckdb.Error: it is no DuckDB file.
    """
    import duckdb

    connection = duckdb.connect(str(path.absolute()), config={**_SAFE, **settings})
    try:
        return _closed(connection, files=files)
    except BaseException:
        connection.close()
        raise


def sniffed_delimiter(text: str) -> str | None:
    """Return what DuckDB takes for the delimiter of a table in text form;

    None where it finds no form.
    """
    import duckdb

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


def stored_form(
    connection: DuckDBPyConnection, table: str, known: Sequence[Mapping[str, str]]
) -> Mapping[str, str]:
    """Which of the known forms, types by the names of its columns in order, the base table `stored.main.TABLE` has.

    What else the file holds is not looked at: no statement here names it. That would take 10 ms, a
    fifth of opening an index; `check_tables` does.

    Raises:
        UnexpectedContent: it is no base table, or has other columns, one that is computed, a
            default, or a constraint.
        duckdb.Error: the file is damaged.
    """
    import duckdb

    place = f"{STORED}.main.{table}"
    try:
        columns = connection.execute("FROM pragma_table_info(?)", [place]).fetchall()
        # Only a base table has a rowid without a column of that name.
        connection.execute(f"SELECT rowid FROM {place} LIMIT 0").fetchall()  # noqa: S608 constants
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        raise UnexpectedContent(f"it holds no table {table}") from error
    plain = all(
        (kept, default, key) == (False, None, False) for _, _, _, kept, default, key in columns
    )
    form = next(
        (
            form
            for form in known
            if plain and [*form.items()] == [(name, kind) for _, name, kind, *_ in columns]
        ),
        None,
    )
    if form is None:
        raise UnexpectedContent(f"its table {table} has another form than imprompt writes")
    return form


def check_tables(
    connection: DuckDBPyConnection, database: str, known: Mapping[str, Sequence[Mapping[str, str]]]
) -> dict[str, Mapping[str, str]]:
    """The columns of each table of an attached database, which holds base tables of the known forms alone.

    Args:
        database: the name that it was attached as.
        known: for each table that may be there, the forms that it may have: types by the names of
            its columns, in order.

    Raises:
        UnexpectedContent: there is a view, another table or schema, or a table of another form (a
            column that is computed, a default, a constraint).
        duckdb.Error: the file is damaged.
    """
    strays = (
        "SELECT 'view', view_name FROM duckdb_views() WHERE NOT internal AND database_name = $1"
    )
    strays += " UNION ALL SELECT 'schema', schema_name FROM duckdb_schemas() WHERE NOT internal AND database_name = $1"
    for kind, name in connection.execute(f"{strays} LIMIT 1", [database]).fetchall():
        raise UnexpectedContent(f"it holds the {kind} {name[:60]!r}")
    found: dict[str, Mapping[str, str]] = {}
    tables = (
        "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE database_name = $1 LIMIT 16"
    )
    for schema, name, statement in connection.execute(tables, [database]).fetchall():
        forms = known.get(name, []) if schema == "main" else []
        form = next(
            (form for form in forms if _plain(statement) == _plain(_create(name, form))), None
        )
        if form is None:
            raise UnexpectedContent(
                f"it holds a table {name[:60]!r} of another form than imprompt writes"
            )
        found[name] = form
    return found


def check_no_macros(connection: DuckDBPyConnection, database: str) -> None:
    """Raise `UnexpectedContent` where a database that statements run in has functions of its own: they go before DuckDB's."""
    statement = "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND database_name = $1 LIMIT 1"
    for (name,) in connection.execute(statement, [database]).fetchall():
        raise UnexpectedContent(f"it holds the macro {name[:60]!r}")


def quoted(path: Path) -> str:
    """A path as a text of SQL."""
    return "'" + str(path.absolute()).replace("'", "''") + "'"


def _closed(
    connection: DuckDBPyConnection, *, files: Sequence[Path], last: str = ""
) -> DuckDBPyConnection:
    """The connection, from now on without access to anything but these files and what DuckDB puts beside them, and, when the
    statement `last` is done, with settings that stay."""
    allowed = ", ".join(quoted(Path(f"{file}{suffix}")) for file in files for suffix in _BESIDE)
    closed = f"SET allowed_paths = [{allowed}]; SET enable_external_access = false;"
    connection.execute(f"{closed} {last} SET lock_configuration = true")
    return connection


def _create(name: str, form: Mapping[str, str]) -> str:
    return f"CREATE TABLE {name}({', '.join(f'{column} {kind}' for column, kind in form.items())});"


def _plain(statement: str) -> str:
    """Without white space and the quotes around names, which differ between versions of DuckDB."""
    return "".join(statement.replace('"', "").split())
