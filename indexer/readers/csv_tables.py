"""Corpora in CSV and TSV.

The standard reader splits the fields; what is added is that a bad record costs itself alone.
"""

from __future__ import annotations

import csv
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from imprompt.core.errors import CorpusError
from imprompt.core.text import as_utf8
from imprompt.core.values import RawPrompt, RejectedRow
from imprompt.indexer.readers.columns import (
    BESIDE_COLUMNS,
    DEFAULT_COLUMN,
    NSFW_COLUMN,
    SUBMITTED_COLUMN,
    choose_column,
    file_digest,
    remembered,
)
from imprompt.indexer.readers.csv_dialect import CsvForm, csv_form, told
from imprompt.indexer.readers.rows import (
    TOO_LONG,
    Row,
    StreamedSource,
    count_rows,
    judge,
    numbered_lines,
)

_LOOKED_AT = 1000
QUOTE_LEFT_OPEN = "quote left open"
WRONG_FIELDS = "fields do not match the header"

_Line: TypeAlias = tuple[int, bytes | None]


def csv_source(path: Path, *, delimiter: str, column: str | None) -> StreamedSource:
    """A table of which `imprompt.indexer.readers.csv_dialect` says the form; `source_key` is "line N", the line that the row begins on.

    In a table of one column a line is a prompt, delimiters and all.

    Raises:
        CorpusError: it holds nothing, or has no such column.
    """
    form = csv_form(path, delimiter=delimiter, wanted=column or DEFAULT_COLUMN)
    if form is None:
        raise CorpusError(
            f"{path} holds no row.",
            path=path,
            line=1,
            hint="Name the columns in its first line, as in: prompt",
        )
    header, name = list(form.header), as_utf8(path.name)
    chosen = choose_column(
        path, column, header, texts=[name for name in header if name not in BESIDE_COLUMNS]
    )
    at = header.index(chosen)
    beside = {other: header.index(other) for other in BESIDE_COLUMNS if other in header}

    def row_of(number: int, fields: list[str] | str) -> Row:
        key = f"line {number}"
        if isinstance(fields, str):
            return RejectedRow(name, key, fields)
        if fields and len(fields) != len(header):
            return RejectedRow(name, key, WRONG_FIELDS)
        told = {other: fields[place] for other, place in beside.items()} if fields else {}
        submitted, nsfw = told.get(SUBMITTED_COLUMN, 1), told.get(NSFW_COLUMN)
        return judge(
            fields[at] if fields else None, source=name, key=key, n_submitted=submitted, nsfw=nsfw
        )

    def rows(start: int) -> Iterator[Row]:
        for number, fields in itertools.islice(_records(path, form), start, None):
            yield row_of(number, fields)

    def remarks() -> list[str]:
        if form.certain:
            return []
        first = next(
            (
                row.text
                for row in itertools.islice(rows(0), _LOOKED_AT)
                if isinstance(row, RawPrompt)
            ),
            "",
        )
        return [told(form, path.name, column=chosen, first=first)]

    digest = remembered(
        [path], lambda: file_digest(path, "csv", f"{form.delimiter}{form.has_header}{chosen}")
    )
    return StreamedSource(name, False, rows, digest, lambda: count_rows(rows), remarks=remarks)


def _records(path: Path, form: CsvForm) -> Iterator[tuple[int, list[str] | str]]:
    """(line number, fields, or the reason why there are none) of each record below the header; bad bytes as lone surrogates.

    A quote that is never closed would swallow the rest of the file: such a record is given up when
    a field passes the reader's limit (131,072 characters), the file ends, or a later quote closes
    it amid a word. Reading goes on with its second line.
    """
    lines = itertools.islice(numbered_lines(path), form.skipped, None)
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=form.delimiter)
    header_left = form.has_header
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
        number = feed.taken[0][0]
        again = isinstance(fields, str)
        if len(feed.taken) > 1 and not again and not _is_well_quoted(feed.taken, form):
            fields, again = QUOTE_LEFT_OPEN, True
        if form.is_one_column and not (len(fields) == 1 and _is_well_quoted(feed.taken, form)):
            fields = _whole_line(feed.taken[0][1]) or fields
        if not header_left:
            yield number, fields
        elif fields:  # not a blank line above it
            header_left = False
        if again:
            feed.give_back()
            reader = csv.reader(feed, delimiter=form.delimiter)


def _is_well_quoted(taken: Sequence[_Line], form: CsvForm) -> bool:
    """Whether each quote that opens is closed before a delimiter or the record's end, as whoever quotes on purpose does it."""
    lines = [line.decode("utf-8", "surrogateescape") for _, line in taken if line is not None]
    try:
        return len(list(csv.reader(lines, delimiter=form.delimiter, strict=True))) == 1
    except csv.Error:
        return False


def _whole_line(line: bytes | None) -> list[str] | None:
    """The line as one field, where it can be held and is not blank."""
    text = "" if line is None else line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    return [text] if text.strip() else None


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
