"""Rows of a corpus: what makes one usable, and how a stream of them becomes a `CorpusSource`.

Files are read as bytes and judged row by row, so that a bad row is named and counted and does not
stop the file.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from imprompt.core.errors import ConfigError, CorpusError
from imprompt.core.values import CorpusBatch, RawPrompt, RejectedRow
from imprompt.indexer.readers.compression import DamagedStream, most_rows, open_stream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PEEKED_BYTES = 1 << 16
MAX_CHARACTERS = 100_000
"""Longest prompt that is kept, a thousand times the usual; above it are files, not prompts."""

MAX_LINE_BYTES = 4 << 20
"""Longest line held in memory: the longest prompt with every character escaped, and columns."""

TOO_LONG = f"longer than {MAX_CHARACTERS:,} characters"
BAD_UTF8 = "bad UTF-8"
NUL_BYTES = "NUL bytes"
NOT_TEXT = "not text"
EMPTY = "empty"
NO_PROMPT = "no embedded prompt"
CARRIED = "embedded prompt that is not exact"

HOLDS_NONE = frozenset({EMPTY, NO_PROMPT, CARRIED})
"""Reasons of rows that were read well and have no prompt, or not for certain."""

_BOM = b"\xef\xbb\xbf"
_PACK_AGAIN = "Fetch or compress the file again."
_MAX_SUBMITTED = 10**9

Row: TypeAlias = RawPrompt | RejectedRow
OpenRows: TypeAlias = Callable[[int], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class StreamedSource:
    """A `CorpusSource` made of functions.

    Attributes:
        open_rows: streams the rows from a given one on.
        digest: returns the fingerprint.
        count: returns the number of rows.
        origin: where it was fetched from.
        remarks: returns a line for each thing that had to be guessed.
    """

    name: str
    synthetic: bool
    open_rows: OpenRows
    digest: Callable[[], str]
    count: Callable[[], int]
    origin: str = ""
    remarks: Callable[[], list[str]] = list

    def fingerprint(self) -> str:
        """Return the fingerprint: equal for equal content, whatever its path."""
        return self.digest()

    def batches(self, size: int, start: int = 0) -> Iterator[CorpusBatch]:
        """Yield batches of at most `size` rows, including rejected ones, from row `start` on.

        Raises:
            ConfigError: `size` below 1 or `start` below 0.
            CorpusError: the source as a whole cannot be read.
        """
        if size < 1 or start < 0:
            raise ConfigError(
                f"A batch of {size} rows from row {start} cannot be read.",
                hint="It has at least 1 row, from row 0 on.",
            )
        rows = self.open_rows(start)
        while taken := list(itertools.islice(rows, size)):
            start += len(taken)
            yield CorpusBatch(
                prompts=tuple(row for row in taken if isinstance(row, RawPrompt)),
                rejected=tuple(row for row in taken if isinstance(row, RejectedRow)),
                next_start=start,
            )


def judge(
    value: object, *, source: str, key: str, n_submitted: object = 1, nsfw: object = None
) -> Row:
    """Return the row as a prompt, or the reason why it is rejected.

    Args:
        value: the cell: bytes in UTF-8, a str (undecodable bytes as lone surrogates), None, or
            anything else.
        source: name of the corpus.
        key: finds the row again inside it.
        n_submitted: how often it was submitted; anything but a number of at least 1 counts as 1.
        nsfw: the corpus's score; anything but a finite number counts as None.
    """
    # Before decoding: there may be millions of such rows.
    if isinstance(value, bytes) and len(value) > 4 * MAX_CHARACTERS:
        return RejectedRow(source, key, TOO_LONG)
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
        if isinstance(text, str):
            text.encode("utf-8")
    except UnicodeError:
        return RejectedRow(source, key, BAD_UTF8)
    if text is None:
        return RejectedRow(source, key, EMPTY)
    if not isinstance(text, str):
        return RejectedRow(source, key, NOT_TEXT)
    if len(text) > MAX_CHARACTERS:
        return RejectedRow(source, key, TOO_LONG)
    if "\0" in text:
        return RejectedRow(source, key, NUL_BYTES)
    if not text or text.isspace():
        return RejectedRow(source, key, EMPTY)
    return RawPrompt(text, source, key, _submissions(n_submitted), _unsafe(nsfw))


def _submissions(value: object) -> int:
    try:
        count = int(value) if isinstance(value, int | str) else 1
    except ValueError:
        return 1
    return min(max(count, 1), _MAX_SUBMITTED)


def _unsafe(value: object) -> float | None:
    try:
        score = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return score if math.isfinite(score) else None


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open the bytes of a file, expanded if it is compressed.

    Raises:
        CorpusError: also inside the block: it cannot be read, ends early or expands too far.
    """
    with reading(path), open_stream(path) as file:
        yield file


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Map errors of the operating system and of expansion to `CorpusError`, naming `path`."""
    try:
        yield
    except DamagedStream as error:
        raise CorpusError(
            f"{path} cannot be read further: {error}.", path=path, hint=_PACK_AGAIN
        ) from error
    except OSError as error:
        raise CorpusError(
            f"{path} cannot be read: {error.strerror or error}.",
            path=path,
            hint="Check the path and its permissions.",
        ) from error


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield (line number from 1, bytes with line break); None for lines above `MAX_LINE_BYTES`.

    Compressed files are expanded, and a UTF-8 byte order mark is skipped.

    Raises:
        CorpusError: the file cannot be read, ends early, expands too far, or is UTF-16.
    """
    number = 0
    with reading(path), open_stream(path) as stream:
        limit = most_rows(path)
        try:
            file = _unix_lines(stream)
            for number in itertools.count(1):
                if number > limit:
                    raise DamagedStream(
                        f"it has more than {limit:,} lines for its length; "
                        "unpacked, any number is read"
                    )
                line = file.readline(MAX_LINE_BYTES + 1)
                if not line:
                    return
                if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise CorpusError(
                        f"{path} is UTF-16, not UTF-8.", path=path, line=1, hint="Save it as UTF-8."
                    )
                if len(line) <= MAX_LINE_BYTES:
                    yield number, line.removeprefix(_BOM) if number == 1 else line
                    continue
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                yield number, None
        except DamagedStream as error:
            raise CorpusError(
                f"{path} cannot be read beyond line {number}: {error}.",
                path=path,
                line=number,
                hint=_PACK_AGAIN,
            ) from error


def _unix_lines(file: BinaryIO) -> BinaryIO:
    """Return the stream, with line feeds for lone carriage returns, as old programs write them."""
    if not isinstance(file, io.BufferedReader):
        return file
    head = file.peek(_PEEKED_BYTES)
    return io.BufferedReader(_LineFeeds(file)) if b"\r" in head and b"\n" not in head else file


class _LineFeeds(io.RawIOBase):
    """A stream with line feeds in place of carriage returns."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        content = self._file.read(len(memoryview(buffer))).replace(b"\r", b"\n")
        memoryview(buffer)[: len(content)] = content
        return len(content)


def count_rows(open_rows: OpenRows) -> int:
    """Return the number of rows by reading them all."""
    return sum(1 for _ in open_rows(0))
