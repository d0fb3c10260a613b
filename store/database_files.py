"""Database files that are being written: DuckDB's errors, and putting a finished one in place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imprompt.core.atomic_files import storage_errors, sync_file, sync_folder
from imprompt.core.errors import Checksum, StoreError, first_line
from imprompt.store.duckdb_import import import_duckdb

_STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


def replace_database(partial: Path, target: Path) -> None:
    """Put a database that is closed and complete in its place, on disk."""
    sync_file(partial)
    partial.replace(target)
    sync_folder(target.parent)


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
