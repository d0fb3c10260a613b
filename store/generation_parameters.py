"""Generation parameters in `prompts.duckdb`: a second table, only there if a row has any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from imprompt.core.errors import Checksum
from imprompt.core.values import Parameters
from imprompt.store.databases import STORED, UnexpectedContent, check_stored_table
from imprompt.store.duckdb_import import import_duckdb
from imprompt.store.layout import REBUILD

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PARAMETER_COLUMNS = {"row_id": "BIGINT", "negative": "VARCHAR", "settings": "VARCHAR"}
"""The columns of `parameters`; `settings` holds a JSON object of texts."""


def has_parameters(connection: DuckDBPyConnection, path: Path) -> bool:
    """Return whether a file that `read_database` opened holds a table of parameters.

    Raises:
        Checksum: it holds one of another form.
    """
    duckdb = import_duckdb()
    try:
        connection.execute("FROM pragma_table_info(?)", [f"{STORED}.main.parameters"])
    except duckdb.CatalogException:
        return False
    try:
        check_stored_table(connection, "parameters", PARAMETER_COLUMNS)
    except UnexpectedContent as error:
        raise Checksum(
            f"{path} is not a file of prompts: {error}.", path=path, hint=REBUILD
        ) from error
    return True


def settings_text(parameters: Parameters) -> str:
    """Return the settings as a JSON object, in their order."""
    return msgspec.json.encode(parameters.settings).decode()


def read_parameters(negative: object, settings: object, *, path: Path) -> Parameters:
    """Return the parameters of a stored row.

    Args:
        path: of what holds the row, for messages.

    Raises:
        Checksum: they are not what `settings_text` and a negative prompt are.
    """
    try:
        return Parameters(
            msgspec.convert(negative, str),
            msgspec.json.decode(msgspec.convert(settings, str), type=dict[str, str]),
        )
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Checksum(
            f"{path} holds generation parameters of another form: {error}.", path=path, hint=REBUILD
        ) from error
