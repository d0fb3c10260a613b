"""Image files written byte by byte, where Pillow would not write them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, *, bits: int = 8, colour: int = 2) -> bytes:
    """Return signature and IHDR; `colour` is 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA."""
    return PNG_SIGNATURE + png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    )


def png(
    pixels: NDArray[np.generic], *, colour: int, before: bytes = b"", after: bytes = b""
) -> bytes:
    """Return a PNG of (height, width, channels) uint8 or uint16 `pixels`, with extra chunks."""
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    height, width = pixels.shape[:2]
    header = png_header(width, height, bits=8 * pixels.dtype.itemsize, colour=colour)
    return (
        header + before + png_chunk(b"IDAT", zlib.compress(rows)) + after + png_chunk(b"IEND", b"")
    )


def text_bomb(megabytes: int) -> bytes:
    """A zTXt chunk of `parameters` that unpacks to many megabytes of zeros."""
    return png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(megabytes << 20), 9))
