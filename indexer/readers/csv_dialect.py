"""The form of a CSV file: its delimiter, its header, and the lines before it.

The suffix says little: spreadsheets write semicolons into `.csv`, and lists of prompts have no
header. A column that is looked for (`prompt`, or the one asked for) settles the delimiter; else
DuckDB's sniffer does. Anything that is guessed is reported before encoding starts.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.text import as_utf8, printable
from imprompt.indexer.readers.compression import DamagedStream, open_stream
from imprompt.indexer.readers.rows import numbered_lines, reading
from imprompt.store.databases import sniffed_delimiter

DELIMITERS = ",;\t|"
_HEAD_BYTES = 1 << 18
_PIECE_BYTES = 1 << 13
_HEAD_RECORDS = 50
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""A first line that spreadsheets write and read."""
_COMMENT = "#"
_NAME = re.compile(r"[^\W\d][\w.-]*(?: [\w.-]+){0,2}")
_WORD = re.compile(r"[^\W\d][\w.-]*")
_LONGEST_NAME = 40
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class CsvForm:
    """How a file is read.

    Attributes:
        delimiter: between fields.
        skipped: lines before the header, or before the first row where there is none.
        header: names of the columns in order; without a header line they are "1", "2", ….
        has_header: whether the first line after those skipped names the columns.
        certain: nothing was guessed.
    """

    delimiter: str
    skipped: int
    header: tuple[str, ...]
    has_header: bool
    certain: bool

    @property
    def is_one_column(self) -> bool:
        """Each line is a prompt, delimiters and all."""
        return len(self.header) == 1


def csv_form(path: Path, *, delimiter: str, column: str) -> CsvForm | None:
    """Return how the file is to be read, or None if it has no rows.

    Args:
        path: of the file, which may be compressed.
        delimiter: that of its suffix.
        column: of the prompts; a first line that names it is a header.

    Raises:
        CorpusError: the file cannot be read.
    """
    lines, skipped, stated = _head(path)
    if not lines:
        return None

    def with_header(used: str, header: list[str]) -> CsvForm:
        certain = used == delimiter and not skipped
        return CsvForm(used, skipped, tuple(header), has_header=True, certain=certain)

    for candidate in dict.fromkeys((stated or delimiter, delimiter, *DELIMITERS)):
        header = _fields(lines[0], candidate)
        if column in header:
            return with_header(candidate, header)
    candidates = (delimiter, sniffed_delimiter("\n".join(lines)), *DELIMITERS)
    consistent = filter(None, (_consistent(lines, each) for each in candidates))
    chosen = stated or next(consistent, delimiter)
    header = _fields(lines[0], chosen)
    if not stated and _consistent(lines, chosen) is None and not all(map(_WORD.fullmatch, header)):
        header = [lines[0]]  # no delimiter fits: a prompt a line
    if len(header) == 1 and len(lines) == 1:
        return CsvForm(chosen, skipped, ("1",), has_header=False, certain=False)
    if _is_header(header, [_fields(line, chosen) for line in lines[1:]]):
        return with_header(chosen, header)
    numbers = tuple(str(number) for number in range(1, len(header) + 1))
    return CsvForm(chosen, skipped, numbers, has_header=False, certain=False)


def describe(form: CsvForm, name: str, *, column: str, first: str) -> str:
    """Return a line that says how a file is read, with its first prompt."""
    names = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
    between = names.get(form.delimiter, repr(form.delimiter))
    fields = (
        "a prompt a line" if form.is_one_column else f"{len(form.header)} columns between {between}"
    )
    header = f"the header names {column!r}" if form.has_header else "no header line"
    shown = first if len(first) <= _SHOWN else f"{first[: _SHOWN - 1]}…"
    return printable(
        f"{as_utf8(name)} is read as {fields}, {header}; its first prompt: {as_utf8(shown)}"
    )


def _head(path: Path) -> tuple[list[str], int, str]:
    """Return the first lines that are not blank, the number of lines before them, and the delimiter
    that the first line states, or "".
    """
    content = _read_head(path)
    lines = content.decode("utf-8-sig", "replace").splitlines()
    if len(content) >= _HEAD_BYTES and len(lines) > 1:
        lines.pop()  # it may be cut
    skipped, stated = 0, ""
    for line in lines:
        if not skipped and (separator := _SEPARATOR.fullmatch(line.strip())):
            stated = separator.group(1)
        elif not (line.startswith(_COMMENT) and skipped < len(lines) - 1):
            break
        skipped += 1
    head = [line for line in lines[skipped : skipped + _HEAD_RECORDS] if line.strip()]
    return head, skipped, stated


def _read_head(path: Path) -> bytes:
    """Read the readable part of the beginning; later damage is reported when rows are read."""
    content = b""
    with reading(path), open_stream(path) as file:
        try:
            while len(content) < _HEAD_BYTES and (piece := file.read(_PIECE_BYTES)):
                content += piece
        except DamagedStream:
            if not content:
                next(numbered_lines(path), None)
    return content


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return [line]


def _consistent(lines: Sequence[str], delimiter: str | None) -> str | None:
    """Return the delimiter if it splits every record into the same number of fields, above one."""
    if not delimiter or len(delimiter) != 1:
        return None
    counts = {len(fields) for fields in csv.reader(lines, delimiter=delimiter) if fields}
    return delimiter if len(counts) == 1 and counts != {1} else None


def _are_names(fields: Sequence[str]) -> bool:
    """Tell whether each looks like a column's name, and no two are equal."""
    plain = all(len(name) <= _LONGEST_NAME and _NAME.fullmatch(name.strip()) for name in fields)
    return plain and len(set(fields)) == len(fields)


def _is_header(fields: Sequence[str], records: Sequence[Sequence[str]]) -> bool:
    """Tell whether fields are names; a single one needs longer texts or numbers below it."""
    if not _are_names(fields):
        return False
    if len(fields) > 1:
        return True
    below = [record[0] for record in records if record]
    n_words = sum(len(value.split()) for value in below)
    return bool(below) and (
        all(map(_is_number, below)) or n_words > 2 * len(below) * len(fields[0].split())
    )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return not value.strip()
    return True
