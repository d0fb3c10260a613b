"""A file's bytes in memory: as a mapped array, or as an address for FAISS."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_POSIX = hasattr(mmap, "PROT_READ")
_FAILED = ctypes.c_void_p(-1).value


def map_file(source: Path | int) -> NDArray[np.uint8]:
    """Return all bytes of a file, by path or descriptor, read-only.

    The file must not become shorter while the array lives. Python's `mmap` keeps a descriptor open
    for each map until version 3.13. An index of ten million prompts has five thousand shards, and
    many shells allow 1,024 descriptors; a map itself needs none. Windows has no such limit.

    Raises:
        OSError: the file cannot be opened or mapped.
    """
    if not _POSIX:
        return _map_by_python(source)
    content, size = address_of(source, mapped=True)
    if size == 0:
        return np.empty(0, dtype=np.uint8)
    unmap = weakref.finalize(content, _libc().munmap, ctypes.addressof(content), size)
    unmap.atexit = False  # at exit the system does it
    # The array holds on to `content`.
    mapped: NDArray[np.uint8] = np.frombuffer(memoryview(content), dtype=np.uint8)
    mapped.flags.writeable = False
    return mapped


def address_of(source: Path | int, *, mapped: bool) -> tuple[Any, int]:
    """Return (all bytes of a file as a ctypes array, their number), page-aligned.

    The caller unmaps them. For POSIX alone, like FAISS's lists that use it.

    Args:
        source: path, or a descriptor at the file's beginning, which stays open.
        mapped: False reads the file into memory, which then does not depend on it; else it must not
            become shorter.

    Raises:
        OSError: the file cannot be opened, mapped or read.
    """
    with open(source, "rb", buffering=0, closefd=not isinstance(source, int)) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return (ctypes.c_ubyte * 0)(), 0
        if mapped:
            return _map(size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno()), size
        anonymous = mmap.MAP_ANONYMOUS | mmap.MAP_PRIVATE
        content = _map(size, mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1)
        view, done = memoryview(content).cast("B"), 0
        while done < size and (n_read := file.readinto(view[done:])):
            done += n_read
        if done < size:
            _libc().munmap(ctypes.addressof(content), size)
            raise OSError(f"{source} became shorter while it was read")
        return content, size


def _map_by_python(source: Path | int) -> NDArray[np.uint8]:
    with open(source, "rb", buffering=0, closefd=not isinstance(source, int)) as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.empty(0, dtype=np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


def _map(size: int, protection: int, flags: int, descriptor: int) -> Any:
    address = _libc().mmap(None, size, protection, flags, descriptor, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return (ctypes.c_ubyte * size).from_address(address)


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
