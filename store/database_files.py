"""Database files that are being written: DuckDB's errors, and putting a finished one in place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.atomic_files import storage_errors, sync_file, sync_folder
from imprompt.core.errors import Checksum, StoreError, first_line
from imprompt.store.databases import Setting, write_database
from imprompt.store.duckdb_import import import_duckdb

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


def replace_database(partial: Path, target: Path) -> None:
    """Put a database that is closed and complete in its place, on disk."""
    sync_file(partial)
    partial.replace(target)
    sync_folder(target.parent)


@contextmanager
def new_database(path: Path, settings: Mapping[str, Setting]) -> Iterator[DuckDBPyConnection]:
    """Open a new database that has the name `path` once the block succeeds; until then NAME.tmp.

    DuckDB writes the header of a new file in several steps, and refuses one that lacks any.

    Args:
        settings: DuckDB's, such as a bound on memory.

    Raises:
        duckdb.Error: it cannot be written; use it within `duckdb_errors`.
    """
    partial = path.with_name(f"{path.name}.tmp")
    remove_database(partial)
    with write_database(partial, settings) as connection:
        yield connection
        # Nothing is left in a write-ahead log then, and closing would hide that a disk is full.
        connection.execute("CHECKPOINT")
    replace_database(partial, path)


def remove_database(path: Path) -> None:
    """Remove a database and its write-ahead log, if they are there."""
    for leftover in (path, path.with_name(f"{path.name}.wal")):
        leftover.unlink(missing_ok=True)


@contextmanager
def duckdb_errors(path: Path) -> Iterator[None]:
    """Map DuckDB's errors while writing to this project's.

    A full disk and its like become `StorageFull`, a lack of memory `StoreError`, others `Checksum`.
    """
    duckdb = import_duckdb()
    with storage_errors(path):
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise StoreError(
                f"{path} takes more memory than DuckDB may use, or more disk space than is free.",
                hint="Free some space and build again.",
            ) from error
        except duckdb.Error as error:
            # DuckDB gives the operating system's words, not its number.
            for number in _STORAGE_ERRNOS:
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number)) from error
            hint = f"Remove {path.parent} and build again."
            raise Checksum(
                f"{path} cannot be used: {first_line(error)}.", path=path, hint=hint
            ) from error
