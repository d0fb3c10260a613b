"""zstd in frames of 4 MiB, each compressed on its own, and a table of their lengths at the end.

That is zstd's seekable format
(https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md):
`zstd -d` reads it like any other file, because the table is a frame that it skips. Reading needs
the memory of one frame, and a frame cannot expand to more than the table says.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

FRAME_BYTES = 4 << 20
"""What a frame holds, the last one of a file aside."""

_SKIPPED, _SEEKABLE = 0x184D2A5E, 0x8F92EAB1
_HEAD, _ENTRY, _FOOT = struct.Struct("<II"), struct.Struct("<II"), struct.Struct("<IBI")

Read = Callable[[int, int], bytes]
"""Returns exactly so many bytes from an offset on: `read(offset, n_bytes)`."""


class DamagedFrames(Exception):
    """The frames are not what `compressed` yields; the text is a phrase."""


def compressed(chunks: Iterable[bytes], *, level: int) -> Iterator[bytes]:
    """Yield the frames of some bytes, and then the table; the same for the same bytes."""
    import pyarrow

    codec, table = pyarrow.Codec("zstd", compression_level=level), []
    for chunk in _cut(chunks):
        frame = codec.compress(chunk, asbytes=True)
        table.append((len(frame), len(chunk)))
        yield frame
    yield _HEAD.pack(_SKIPPED, len(table) * _ENTRY.size + _FOOT.size)
    yield b"".join(_ENTRY.pack(*entry) for entry in table)
    yield _FOOT.pack(len(table), 0, _SEEKABLE)


def expanded(read: Read, *, offset: int, length: int, n_bytes: int) -> Iterator[bytes]:
    """Yield the bytes that `compressed` was given, frame by frame; the table is checked first.

    Args:
        offset: where the frames begin.
        length: of the frames and the table.
        n_bytes: how many bytes they expand to.

    Raises:
        DamagedFrames: they are other frames, or expand to something else.
    """
    import pyarrow

    codec = pyarrow.Codec("zstd")
    for at, frame_bytes, expanded_bytes in _table(
        read, offset=offset, length=length, n_bytes=n_bytes
    ):
        try:
            chunk = codec.decompress(read(at, frame_bytes), expanded_bytes, asbytes=True)
        except OSError as error:  # pyarrow's only error here, without a number
            raise DamagedFrames(f"a frame cannot be expanded ({error})") from error
        yield chunk


def _table(read: Read, *, offset: int, length: int, n_bytes: int) -> list[tuple[int, int, int]]:
    """Return (offset, length, expanded length) of each frame; they fill the member to its end."""
    count = -(-n_bytes // FRAME_BYTES)
    table_bytes = _HEAD.size + count * _ENTRY.size + _FOOT.size
    if table_bytes > length:
        raise DamagedFrames(f"it is too short to expand to {n_bytes:,} bytes")
    table = read(offset + length - table_bytes, table_bytes)
    head, foot = _HEAD.unpack_from(table), _FOOT.unpack_from(table, table_bytes - _FOOT.size)
    if head != (_SKIPPED, table_bytes - _HEAD.size) or foot != (count, 0, _SEEKABLE):
        raise DamagedFrames(f"it does not end with the table of {count:,} frames")
    frames, at = [], offset
    entries = _ENTRY.iter_unpack(table[_HEAD.size : table_bytes - _FOOT.size])
    for number, (frame_bytes, expanded_bytes) in enumerate(entries):
        wanted = min(FRAME_BYTES, n_bytes - number * FRAME_BYTES)
        if expanded_bytes != wanted or frame_bytes > 2 * FRAME_BYTES:
            raise DamagedFrames(
                f"frame {number} of {frame_bytes:,} bytes claims {expanded_bytes:,}, not {wanted:,}"
            )
        frames.append((at, frame_bytes, expanded_bytes))
        at += frame_bytes
    if at + table_bytes != offset + length:
        raise DamagedFrames("its frames do not add up to its length")
    return frames


def _cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of `FRAME_BYTES`; the last one is shorter, none is empty."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        while len(pending) >= FRAME_BYTES:
            yield bytes(pending[:FRAME_BYTES])
            del pending[:FRAME_BYTES]
    if pending:
        yield bytes(pending)
