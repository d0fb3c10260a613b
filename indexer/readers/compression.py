"""Files that may be compressed with gzip or zstd, by their suffix, as streams of bytes.

A file does not tell what it expands to, so expansion is bounded: no real table of prompts grows
fiftyfold.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CODECS = {".gz": "gzip", ".zst": "zstd"}

MAX_EXPANSION = 50
"""Largest ratio of expanded to compressed length; tables of prompts have 3 to 20."""

FREE_BYTES = 32 << 20
"""Bytes that any file may expand to, however small it is."""

FREE_ROWS = 1 << 15
"""Rows that any file may have, however small it is."""

BYTES_A_ROW = 16
"""Least compressed bytes of a row, beyond `FREE_ROWS`; real prompts, sorted, take 27 in gzip."""

_BUFFER_BYTES = 1 << 18


class DamagedStream(Exception):
    """A compressed stream cannot be expanded further; the text is a phrase like "it ends early"."""


def most_rows(path: Path) -> int:
    """Return how many rows a file of this length may have.

    Without a limit, a compressed megabyte could hold a hundred million rows.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    return max(FREE_ROWS, size // BYTES_A_ROW if path.suffix.lower() in CODECS else size)


def table_suffix(path: Path) -> str:
    """Return the suffix of the kind of table in lower case: ".csv" for `a.csv` and `a.csv.GZ`."""
    inner = path.with_suffix("") if path.suffix.lower() in CODECS else path
    return inner.suffix.lower()


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Open the bytes of a file, expanded if its suffix is one of `CODECS`.

    Raises:
        OSError: it cannot be opened or read.
        DamagedStream: from reading: it ends early, is damaged, or expands beyond `MAX_EXPANSION`
            and `FREE_BYTES`.
    """
    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        with path.open("rb") as file:
            yield file
        return
    import pyarrow as pa

    with (
        path.open("rb") as file,
        pa.PythonFile(file, mode="r") as plain,
        pa.CompressedInputStream(plain, codec) as stream,
    ):
        limit = max(FREE_BYTES, MAX_EXPANSION * path.stat().st_size)
        yield io.BufferedReader(_Expanding(stream, codec=codec, limit_bytes=limit), _BUFFER_BYTES)


class _Expanding(io.RawIOBase):
    """The expanded bytes, up to a limit."""

    def __init__(self, stream: Any, *, codec: str, limit_bytes: int) -> None:
        self._stream = stream
        self._codec = codec
        self._limit_bytes = limit_bytes
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            content = self._stream.read(len(memoryview(buffer)))
        except OSError as error:  # pyarrow's only error here, without a number
            early = "Truncated" in str(error)
            raise DamagedStream(
                "it ends early" if early else f"it is not a valid {self._codec} file ({error})"
            ) from error
        self._read_bytes += len(content)
        if self._read_bytes > self._limit_bytes:
            raise DamagedStream(
                f"it expands to more than {MAX_EXPANSION} times its length "
                f"and {FREE_BYTES >> 20} MiB"
            )
        memoryview(buffer)[: len(content)] = content
        return len(content)
