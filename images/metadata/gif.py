"""The comments of a GIF; Pillow decodes frames to read the comments that follow them."""

from __future__ import annotations

from typing import IO

_EXTENSION, _COMMENT, _APPLICATION, _IMAGE = 0x21, 0xFE, 0xFF, 0x2C
_XMP = b"XMP DataXMP"
# XMP is not split into sub-blocks; descending bytes after it let other readers find its end.
_XMP_TRAILER = b"\x01\xff\xfe\xfd"
_MAX_BLOCKS = 100_000
"""Sub-blocks of 255 bytes at most: 25 MB of frames are skipped."""


def gif_comments(file: IO[bytes], *, limit: int) -> tuple[list[bytes], bytes]:
    """Return the comments of a file that is open at its start, and its XMP packet (GIF89a, 24).

    Args:
        limit: most bytes of each; longer ones are omitted.
    """
    comments: list[bytes] = []
    xmp = b""
    left = _MAX_BLOCKS
    head = file.read(13)
    if len(head) == 13:
        _skip_table(file, head[10])
    while left > 0 and (mark := file.read(1)):
        if mark[0] == _IMAGE:
            descriptor = file.read(9)
            if len(descriptor) < 9:
                break
            _skip_table(file, descriptor[8])
            file.seek(1, 1)
            left = _skip_blocks(file, left)
        elif mark[0] == _EXTENSION:
            label = file.read(1)
            if label == bytes([_COMMENT]):
                text, left = _blocks(file, left, limit)
                comments.extend([text] if text else [])
            elif label == bytes([_APPLICATION]):
                data, left = _blocks(file, left, limit, raw=True)
                xmp = xmp or (data[12:] if data[1:12] == _XMP else b"")
            else:
                left = _skip_blocks(file, left)
        else:
            break
    return comments, xmp.partition(_XMP_TRAILER)[0]


def _skip_table(file: IO[bytes], flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << ((flags & 7) + 1), 1)


def _skip_blocks(file: IO[bytes], left: int) -> int:
    while left > 0 and (size := file.read(1)) and size[0]:
        file.seek(size[0], 1)
        left -= 1
    return left


def _blocks(file: IO[bytes], left: int, limit: int, *, raw: bool = False) -> tuple[bytes, int]:
    """Return the joined sub-blocks, empty beyond the limit; with their size bytes where `raw`."""
    parts: list[bytes] = []
    total = 0
    while left > 0 and (size := file.read(1)) and size[0]:
        data = file.read(size[0])
        left -= 1
        total += len(data)
        if total <= limit:
            parts.append(size + data if raw else data)
    return (b"".join(parts) if total <= limit else b""), left
