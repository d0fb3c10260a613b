"""A file as an array of bytes that the operating system reads when they are touched."""

from __future__ import annotations

import ctypes
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROT_READ, _MAP_SHARED = 1, 1  # the same on Linux and macOS
_FAILED = ctypes.c_void_p(-1).value


def map_file(path: Path) -> NDArray[np.uint8]:
    """All bytes of a file, read-only; empty where the file is. The file must not become shorter while the array lives.

    Python's `mmap` keeps a descriptor open for each map until version 3.13. An index of ten million prompts has five thousand
    shards, and many a shell allows 1,024 descriptors; a map itself needs none.

    Raises:
        OSError: the file cannot be opened or mapped.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return np.empty(0, dtype=np.uint8)
        address = _libc().mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(descriptor)
    content = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(content, _libc().munmap, address, size).atexit = False  # at exit the system does it
    mapped: NDArray[np.uint8] = np.frombuffer(memoryview(content), dtype=np.uint8)  # holds on to `content`
    mapped.flags.writeable = False
    return mapped


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
