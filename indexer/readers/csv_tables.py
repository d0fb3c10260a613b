"""Corpora in CSV and TSV.

The standard library splits the fields; this module isolates malformed records.
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
    DEFAULT_COLUMN,
    EXTRA_COLUMNS,
    choose_column,
    file_source,
    judge_cells,
)
from imprompt.indexer.readers.csv_dialect import CsvForm, csv_form, describe
from imprompt.indexer.readers.rows import TOO_LONG, Row, StreamedSource, numbered_lines

_PEEKED_ROWS = 1000
QUOTE_LEFT_OPEN = "quote left open"
WRONG_FIELDS = "fields do not match the header"

_Line: TypeAlias = tuple[int, bytes | None]


def csv_source(path: Path, *, delimiter: str, column: str | None) -> StreamedSource:
    """Read a table in the form that `csv_dialect` finds; `source_key` is "line N", its first line.

    In a table of one column a line is a prompt, delimiters and all.

    Raises:
        CorpusError: the file is empty, or has no such column.
    """
    form = csv_form(path, delimiter=delimiter, column=column or DEFAULT_COLUMN)
    if form is None:
        raise CorpusError(
            f"{path} has no rows.",
            path=path,
            line=1,
            hint="Name the columns in its first line, as in: prompt",
        )
    header, name = list(form.header), as_utf8(path.name)
    texts = [other for other in header if other not in EXTRA_COLUMNS]
    chosen = choose_column(path, column, header, texts=texts)
    prompt_at = header.index(chosen)
    extra_at = {other: header.index(other) for other in EXTRA_COLUMNS if other in header}

    def row_of(number: int, fields: list[str] | str) -> Row:
        key = f"line {number}"
        if isinstance(fields, str):
            return RejectedRow(name, key, fields)
        if not fields:
            return judge_cells(None, {}, source=name, key=key)
        if len(fields) != len(header):
            return RejectedRow(name, key, WRONG_FIELDS)
        extra = {other: fields[at] for other, at in extra_at.items()}
        return judge_cells(fields[prompt_at], extra, source=name, key=key)

    def rows(start: int) -> Iterator[Row]:
        for number, fields in itertools.islice(_records(path, form), start, None):
            yield row_of(number, fields)

    def remarks() -> list[str]:
        if form.certain:
            return []
        peeked = itertools.islice(rows(0), _PEEKED_ROWS)
        first = next((row.text for row in peeked if isinstance(row, RawPrompt)), "")
        return [describe(form, path.name, column=chosen, first=first)]

    read_as = f"{form.delimiter}{form.has_header}{chosen}"
    return file_source(path, "csv", read_as, rows, remarks=remarks)


def _records(path: Path, form: CsvForm) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (line number, fields or why there are none) of each record after the header.

    Bad bytes come as lone surrogates. A quote that is never closed would swallow the rest of the
    file: such a record is rejected when a field passes the reader's limit (131,072 characters), the
    file ends, or a later quote closes it amid a word. Reading resumes with its second line.
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
        retry = isinstance(fields, str)
        if len(feed.taken) > 1 and not retry and not _is_well_quoted(feed.taken, form):
            fields, retry = QUOTE_LEFT_OPEN, True
        if form.is_one_column and not (len(fields) == 1 and _is_well_quoted(feed.taken, form)):
            fields = _whole_line(feed.taken[0][1]) or fields
        if not header_left:
            yield number, fields
        elif fields:  # skip blank lines before the header
            header_left = False
        if retry:
            feed.give_back()
            reader = csv.reader(feed, delimiter=form.delimiter)


def _is_well_quoted(taken: Sequence[_Line], form: CsvForm) -> bool:
    """Tell whether each quote closes before a delimiter or the record's end."""
    lines = [line.decode("utf-8", "surrogateescape") for _, line in taken if line is not None]
    try:
        return len(list(csv.reader(lines, delimiter=form.delimiter, strict=True))) == 1
    except csv.Error:
        return False


def _whole_line(line: bytes | None) -> list[str] | None:
    """Return the line as one field, or None if it is too long or blank."""
    text = "" if line is None else line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    return [text] if text.strip() else None


class _LongLine(Exception):
    """A line that is too long to be held in memory."""


class _Feed:
    """Lines for a csv reader, with those `taken` for a record; tells if the file `ended` in it."""

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
        """Hand out all lines of the record but its first again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.ended = False
