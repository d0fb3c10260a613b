"""Locks between processes: one writer of an index, any number of readers that hold a version.

All are `flock`s, which the kernel drops with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imprompt.core.atomic_files import storage_errors
from imprompt.core.errors import BuildLocked
from imprompt.store.layout import lock_path, staging_root, versions_folder
from imprompt.store.paths import entries, open_file


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
        if not try_flock(descriptor, fcntl.LOCK_EX):
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise BuildLocked(
                f"{root} is being written by process {holder}.",
                hint="Wait until it has ended, or end it, then try again.",
            )
        with storage_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        for folder in (versions_folder(root), staging_root(root)):
            entries(folder)  # raises if it is a link, through which this would write elsewhere
        yield
    finally:
        os.close(descriptor)


def try_flock(descriptor: int, kind: int) -> bool:
    """Take the lock `fcntl.LOCK_SH` or `LOCK_EX` if it is free; it goes with the descriptor."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
