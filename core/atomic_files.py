"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from imprompt.core.errors import ConfigError, StorageFull

_CHUNK_BYTES = 1 << 20
_FOLDERS_OPEN = hasattr(os, "O_DIRECTORY")
"""Whether a folder can be opened: not on Windows, which keeps the order of renames itself."""
_STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
)

_PERMISSION = "Ask its owner for the right to write, or name another folder"
_REMEDIES = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "Name a folder on another file system",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn "no space", "read-only" and "not permitted" into a `StorageFull` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE_ERRNOS:
            raise
        remedy = _REMEDIES.get(error.errno, "Free some space or name another folder")
        raise StorageFull(
            f"{path} cannot be written: {os.strerror(error.errno)}.",
            hint=f"{remedy}; what was published before is untouched.",
        ) from error


@contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path`, complete and synced, when the block succeeds.

    It is written next to the target and then renamed. If the block raises, nothing is left behind
    and an older file of that name is untouched.

    Args:
        path: its folder is made if it is missing.
        replace: whether an older file of that name is replaced.

    Raises:
        StorageFull: the disk is full or may not be written.
        FileExistsError: without `replace`, something of that name exists, be it a broken link.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(path)
        try:
            with suppress(FileNotFoundError):
                partial.unlink()
            with partial.open("xb") as file:  # never through a planted link
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                partial.replace(path)
            else:
                _rename_to_new(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        sync_folder(path.parent)


def _rename_to_new(partial: Path, path: Path) -> None:
    """Rename a file; raise `FileExistsError` if the new name is taken."""
    try:
        path.hardlink_to(partial)  # refuses a name that is taken, in one step
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.rename(path)
    else:
        partial.unlink()


def check_place(path: Path) -> None:
    """Raise now what `atomic_write(path)` would raise after hours of work; change no file.

    Raises:
        ConfigError: a folder has that name, or a file stands where its folder should be.
        StorageFull: the folder may not be written.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder.", hint="Name a file.")
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = _partial(path)
            partial.touch()
            partial.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path.parent} is not a folder.", hint="Name a file in a folder."
        ) from error


def sync_file(path: Path) -> None:
    """Make the bytes of the file `path` survive a power cut."""
    _sync(path, os.O_RDONLY if _FOLDERS_OPEN else os.O_RDWR)  # Windows asks for the right to write


def sync_folder(path: Path) -> None:
    """Make renames inside the folder `path` survive a power cut; does nothing on Windows."""
    if _FOLDERS_OPEN:
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path, *, length: int | None = None) -> str:
    """Return the sha256, in 64 hex digits, of a file or of its first `length` bytes.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    left = path.stat().st_size if length is None else length
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def _partial(path: Path) -> Path:
    """Return the path under which a file is written before it is renamed."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
