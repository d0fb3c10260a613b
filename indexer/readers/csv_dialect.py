"""What a CSV file is: its delimiter, its header, and what stands before it.

The suffix says little: spreadsheets write semicolons into `.csv`, and lists of prompts have no
header. A name that is looked for (`prompt`, or the column asked for) settles the delimiter; else
DuckDB's sniffer does. Whatever is not certain is told before anything is encoded.
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


def csv_form(path: Path, *, delimiter: str, wanted: str) -> CsvForm | None:
    """Return how the file is to be read, or None where it holds no row.

    Args:
        path: of the file, which may be compressed.
        delimiter: that of its suffix.
        wanted: the column of the prompts; a header that names it is one.

    Raises:
        CorpusError: the file cannot be read.
    """
    lines, skipped, given = _head(path)
    if not lines:
        return None
    text = "\n".join(lines)
    for named in dict.fromkeys((given or delimiter, delimiter, *DELIMITERS)):
        header = _fields(lines[0], named)
        if wanted in header:
            return CsvForm(
                named,
                skipped,
                tuple(header),
                has_header=True,
                certain=named == delimiter and not skipped,
            )
    tried = (delimiter, sniffed_delimiter(text), *DELIMITERS)
    chosen = given or next(filter(None, (_consistent(lines, each) for each in tried)), delimiter)
    header = _fields(lines[0], chosen)
    if not given and _consistent(lines, chosen) is None and not all(map(_WORD.fullmatch, header)):
        header = [lines[0]]  # no delimiter fits: a prompt a line
    if len(header) == 1 and len(lines) == 1:
        return CsvForm(chosen, skipped, ("1",), has_header=False, certain=False)
    if _is_header(header, [_fields(line, chosen) for line in lines[1:]]):
        return CsvForm(
            chosen,
            skipped,
            tuple(header),
            has_header=True,
            certain=chosen == delimiter and not skipped,
        )
    numbers = tuple(str(number) for number in range(1, len(header) + 1))
    return CsvForm(chosen, skipped, numbers, has_header=False, certain=False)


def told(form: CsvForm, name: str, *, column: str, first: str) -> str:
    """Return one line that says how a file is read, with the first prompt as it was read."""
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
    """(the first lines that are not blank, how many lines stand before them, the delimiter that the first line says)."""
    content = _read_head(path)
    lines = content.decode("utf-8-sig", "replace").splitlines()
    if len(content) >= _HEAD_BYTES and len(lines) > 1:
        lines.pop()  # it may be cut
    skipped, given = 0, ""
    for line in lines:
        if not skipped and (found := _SEPARATOR.fullmatch(line.strip())):
            given = found.group(1)
        elif not (line.startswith(_COMMENT) and skipped < len(lines) - 1):
            break
        skipped += 1
    return (
        [line for line in lines[skipped : skipped + _HEAD_RECORDS] if line.strip()],
        skipped,
        given,
    )


def _read_head(path: Path) -> bytes:
    """What can be read of the beginning; damage behind it is told with its line when the rows are read."""
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
    """The delimiter, where it splits every record into the same number of fields, more than one."""
    if not delimiter or len(delimiter) != 1:
        return None
    counts = {len(fields) for fields in csv.reader(lines, delimiter=delimiter) if fields}
    return delimiter if len(counts) == 1 and counts != {1} else None


def _are_names(fields: Sequence[str]) -> bool:
    """Each looks like a column's name, and no two are the same."""
    plain = all(len(name) <= _LONGEST_NAME and _NAME.fullmatch(name.strip()) for name in fields)
    return plain and len(set(fields)) == len(fields)


def _is_header(fields: Sequence[str], records: Sequence[Sequence[str]]) -> bool:
    """The fields look like names; a single one has longer texts below, too, or numbers."""
    if not _are_names(fields):
        return False
    if len(fields) > 1:
        return True
    for place, name in enumerate(fields):
        below = [record[place] for record in records if place < len(record)]
        words = sum(len(value.split()) for value in below)
        if below and (
            all(_is_number(value) for value in below) or words > 2 * len(below) * len(name.split())
        ):
            return True
    return False


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return not value.strip()
    return True
