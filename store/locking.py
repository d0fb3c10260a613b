"""Locks between processes: one writer of an index, any number of readers that hold a version.

All are locks of the system, which it drops with the process, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from imprompt.core.atomic_files import storage_errors
from imprompt.core.errors import BuildLocked
from imprompt.store.layout import lock_path, staging_root, versions_folder
from imprompt.store.paths import entries, open_file

OPEN_FILES_PIN = find_spec("fcntl") is None
"""Whether there is no `flock`: on Windows, where a folder with an open file cannot be moved."""

_HOLDER_AT = 1  # on Windows the lock is on the first byte, which nobody else can read then


@contextmanager
def write_lock(root: Path) -> Iterator[None]:
    """Hold the right to write below `root`, which is created where it is missing.

    Raises:
        BuildLocked: another process holds it; names its id.
        Checksum: the lock, or a folder of the index, is a link or something else than it should be.
        StorageFull: the folder may not be written.
    """
    path = lock_path(root)
    with storage_errors(path):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = open_file(root, path.name, flags=os.O_RDWR | os.O_CREAT, root=True)
    try:
        if not try_lock(descriptor):
            os.lseek(descriptor, _HOLDER_AT, os.SEEK_SET)
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise BuildLocked(
                f"{root} is being written by process {holder}.",
                hint="Wait until it has ended, or end it, then try again.",
            )
        with storage_errors(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"\n" * _HOLDER_AT + f"{os.getpid()}\n".encode())
        for folder in (versions_folder(root), staging_root(root)):
            entries(folder)  # raises if it is a link, through which this would write elsewhere
        yield
    finally:
        os.close(descriptor)


def remove_lock(root: Path) -> None:
    """Remove the lock, and `root` if it is empty then, where `write_lock` could not be removed.

    That is on Windows, while it is held.
    """
    if OPEN_FILES_PIN:
        with suppress(OSError):  # another process has it open, or has written something since
            lock_path(root).unlink()
            root.rmdir()


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file if it is free; it goes with the descriptor."""
    from filelock import lock_descriptor

    return lock_descriptor(descriptor, blocking=False)


def try_shared_lock(descriptor: int) -> bool:
    """Take a reader's lock, which keeps `try_lock` out, unless that is held; as `try_lock` else.

    `filelock` has no shared lock on an open file: its `ReadWriteLock` is a database of SQLite or a
    set of files, and readers may write nothing into an index. With `OPEN_FILES_PIN` there is
    nothing to lock.
    """
    if OPEN_FILES_PIN:
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
