"""Checksums of pieces, compared whenever a piece is read: no answer rests on changed bytes.

A file of sums is a row of crc32 (little-endian, 4 bytes each): one for each stored row of a space,
one for each list of an inverted file, one for each 4,096 rows of a flat index. A sum starts from
the number of its piece, so that a misplaced piece is found, too. The files need no check before
they are used: a damaged sum agrees with nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import Checksum
from imprompt.core.values import Ids
from imprompt.store.layout import VERIFY
from imprompt.store.mapping import map_file
from imprompt.store.paths import open_file, read_at

_SUM = np.dtype("<u4")
_ALL_BITS = 0xFFFF_FFFF


def sum_of(piece: Any, number: int) -> int:
    """Return the sum of a piece's bytes; all its bits depend on the bytes and on the number."""
    return crc32(piece, number & _ALL_BITS)


def row_sums(rows: NDArray[np.float16], numbers: Iterable[int]) -> NDArray[np.uint32]:
    """Return the (n,) sums of rows that are contiguous in memory."""
    content, width = np.ascontiguousarray(rows).data.cast("B"), rows.shape[1] * rows.itemsize
    begins = range(0, len(rows) * width, width)
    sums = (
        crc32(content[begin : begin + width], number & _ALL_BITS)
        for begin, number in zip(begins, numbers, strict=True)
    )
    return np.fromiter(sums, dtype=_SUM, count=len(rows))


def write_sums(folder: Path, file: str, parts: Iterable[NDArray[np.uint32]]) -> None:
    """Write a file of sums.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    with atomic_write(folder / file) as opened:
        for part in parts:
            opened.write(part.astype(_SUM).data)


def read_sums(folder: Path, file: str, *, count: int, mapped: bool) -> NDArray[np.uint32]:
    """Return the sums in a file, mapped or in memory.

    Raises:
        Checksum: it is missing, or has another number of them.
    """
    path = folder / file
    try:
        descriptor = open_file(folder, file)
        try:
            content = (
                map_file(descriptor)
                if mapped
                else np.frombuffer(read_at(descriptor, count * _SUM.itemsize + 1, 0), np.uint8)
            )
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Checksum(
            f"{path} cannot be read: {error.strerror or error}.", path=path, hint=VERIFY
        ) from error
    if content.size != count * _SUM.itemsize:
        raise Checksum(
            f"{path} has {content.size} bytes, not {count * _SUM.itemsize}.", path=path, hint=VERIFY
        )
    return content.view(_SUM)


def first_wrong(
    sums: NDArray[np.uint32], rows: NDArray[np.float16], numbers: Sequence[int] | Ids
) -> int | None:
    """Return the number of the first row that its sum does not match; None if all match."""
    ids = np.asarray(numbers, dtype=np.int64)
    wrong = np.flatnonzero(row_sums(rows, ids.tolist()) != sums[ids])
    return int(ids[wrong[0]]) if wrong.size else None
