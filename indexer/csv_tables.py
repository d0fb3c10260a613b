"""Corpora in CSV and TSV. The standard reader splits the fields; what is added is that a bad record costs itself alone."""

from __future__ import annotations

import csv
import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from core.errors import CorpusError
from core.text import as_utf8
from core.values import RejectedRow
from indexer.columns import BESIDE_COLUMNS, NSFW_COLUMN, SUBMITTED_COLUMN, choose_column, file_digest, remembered
from indexer.rows import TOO_LONG, Row, StreamedSource, count_rows, judge, numbered_lines

QUOTE_LEFT_OPEN = "quote left open"
WRONG_FIELDS = "fields do not match the header"

_Line: TypeAlias = tuple[int, bytes | None]


def csv_source(path: Path, *, delimiter: str, column: str | None) -> StreamedSource:
    """A table with a header line; `source_key` is "line N", the line that the row begins on.

    Raises:
        CorpusError: no header, or no such column.
    """
    header = next((fields for _, fields in _records(path, delimiter)), None)
    if not isinstance(header, list) or not header:
        raise CorpusError(
            f"{path} has no header line.", path=path, line=1, hint="Name the columns in its first line, as in: prompt"
        )
    chosen = choose_column(path, column, header, texts=[name for name in header if name not in BESIDE_COLUMNS])
    at = header.index(chosen)
    beside = {name: header.index(name) for name in BESIDE_COLUMNS if name in header}

    def rows(start: int) -> Iterator[Row]:
        for number, fields in itertools.islice(_records(path, delimiter), start + 1, None):
            key = f"line {number}"
            if isinstance(fields, str):
                yield RejectedRow(as_utf8(path.name), key, fields)
            elif fields and len(fields) != len(header):
                yield RejectedRow(as_utf8(path.name), key, WRONG_FIELDS)
            else:
                told = {name: fields[place] for name, place in beside.items()} if fields else {}
                submitted, nsfw = told.get(SUBMITTED_COLUMN, 1), told.get(NSFW_COLUMN)
                yield judge(fields[at] if fields else None, source=as_utf8(path.name), key=key, n_submitted=submitted, nsfw=nsfw)

    digest = remembered([path], lambda: file_digest(path, "csv", chosen))
    return StreamedSource(as_utf8(path.name), False, rows, digest, lambda: count_rows(rows))


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """(line number, fields, or the reason why there are none) of each record, the header first; bad bytes as lone surrogates.

    A quote that is never closed would swallow the rest of the file: such a record is given up when a field passes the reader's
    limit (131,072 characters) or the file ends, and reading goes on with its second line.
    """
    feed = _Feed(numbered_lines(path))
    reader = csv.reader(feed, delimiter=delimiter)
    while True:
        feed.taken.clear()
        try:
            fields: list[str] | str = next(reader)
        except StopIteration:
            return
        except (csv.Error, _LongLine):
            fields = TOO_LONG if len(feed.taken) == 1 else QUOTE_LEFT_OPEN
        if feed.ended and isinstance(fields, list):
            fields = QUOTE_LEFT_OPEN
        yield feed.taken[0][0], fields
        if isinstance(fields, str):
            feed.give_back()
            reader = csv.reader(feed, delimiter=delimiter)


class _LongLine(Exception):
    """A line that is too long to be held."""


class _Feed:
    """Hands lines to a csv reader; knows those `taken` for the record at hand, and whether the file `ended` inside of it."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._again: deque[_Line] = deque()
        self.taken: list[_Line] = []
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.taken.append(line)
        if line[1] is None:
            raise _LongLine
        return line[1].decode("utf-8", "surrogateescape")

    def give_back(self) -> None:
        """All lines of the record but its first will be handed out again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.ended = False
