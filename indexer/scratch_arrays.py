"""Arrays in temporary files: as long as the disk allows, with little of them in memory.

A file has no name from the start (on Windows it is deleted when it is closed), so that nothing is
left of it however the process ends.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from imprompt.core.atomic_files import storage_errors

_WINDOW_BYTES = 1 << 24
"""A power of two, and so of whole pages."""
_BLOCK_ROWS = 1 << 20


class ScratchArray:
    """An array of fixed-size elements that is written once and then read and changed in place.

    At most 16 MiB of it stay in memory between calls.

    Args:
        folder: where the file lies; it must exist.
        dtype: of an element; a power of two of bytes. A subarray makes the elements rows.

    Raises:
        StorageFull: the disk is full or may not be written (also `append` and `fill`).
    """

    def __init__(self, folder: Path, dtype: DTypeLike) -> None:
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._map: mmap.mmap | None = None
        self._array: NDArray[Any] | None = None
        with storage_errors(folder):
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 `close` does

    def __len__(self) -> int:
        return self._length

    @property
    def n_bytes(self) -> int:
        """How much disk it takes."""
        return self._length * self._dtype.itemsize

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows at the end; they are cast to the type of the array."""
        self._unmap()
        with storage_errors(self._folder):
            self._file.write(np.ascontiguousarray(rows, dtype=self._dtype.base).data)
        self._length += len(rows)

    def fill(self, length: int, value: int) -> None:
        """Write `length` elements of this value at the end.

        So that their disk space is taken: a map of a file with holes kills the process when the
        disk is full.
        """
        for start in range(0, length, _BLOCK_ROWS):
            shape = (min(_BLOCK_ROWS, length - start), *self._dtype.shape)
            self.append(np.full(shape, value, dtype=self._dtype.base))

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all rows in consecutive copies of up to a million."""
        for start in range(0, self._length, _BLOCK_ROWS):
            block = self._mapped()[start : start + _BLOCK_ROWS].copy()
            self._release(0, self._length)
            yield block

    def take(self, indexes: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows at these indexes."""
        array = self._mapped()
        if self.n_bytes <= _WINDOW_BYTES:
            return array[indexes]
        taken = np.empty((len(indexes), *self._dtype.shape), dtype=self._dtype.base)
        for part in self._windows(indexes):
            taken[part] = array[indexes[part]]
        return taken

    def put(self, indexes: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Replace the rows at these indexes, which are all different."""
        array = self._mapped()
        for part in self._windows(indexes):
            array[indexes[part]] = rows[part]

    def close(self) -> None:
        """Free the disk space; calling it again does nothing."""
        self._unmap()
        with suppress(OSError):  # of writing what is left to write to a full disk
            self._file.close()

    def __enter__(self) -> ScratchArray:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _windows(self, indexes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of indexes that lie in one window, and let go of it afterwards."""
        if not len(indexes):
            return
        rows = _WINDOW_BYTES // self._dtype.itemsize
        by_index = np.argsort(indexes, kind="stable")
        windows = indexes[by_index] // rows
        bounds = np.flatnonzero(np.diff(windows)) + 1
        for part in np.split(by_index, bounds):
            yield part
            first = int(indexes[part[0]]) // rows * rows
            self._release(first, min(first + rows, self._length))

    def _mapped(self) -> NDArray[Any]:
        if self._array is None:
            with storage_errors(self._folder):
                self._file.flush()
            if not self._length:  # which cannot be mapped
                return np.empty((0, *self._dtype.shape), dtype=self._dtype.base)
            self._map = mmap.mmap(self._file.fileno(), 0)
            self._array = np.frombuffer(self._map, dtype=self._dtype)
        return self._array

    def _unmap(self) -> None:
        self._array = None
        if self._map is not None:
            self._map.close()
            self._map = None

    def _release(self, start: int, stop: int) -> None:
        """Drop rows from memory; they stay in the file, and in the system's cache if it has room.

        Does nothing where a process cannot (Windows): there the system decides.
        """
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            size = self._dtype.itemsize
            self._map.madvise(mmap.MADV_DONTNEED, start * size, (stop - start) * size)


class Scratch:
    """Makes scratch arrays in a folder and closes them with itself. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()

    def array(self, dtype: DTypeLike) -> ScratchArray:
        """Return a new, empty array.

        Raises:
            StorageFull: the disk is full or may not be written.
        """
        return self._open.enter_context(ScratchArray(self._folder, dtype))

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()
