"""Tables in files, one by one and as folders of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import CorpusError
from imprompt.core.text import as_utf8
from imprompt.core.values import RawPrompt, RejectedRow
from imprompt.indexer.readers.arrow_tables import arrow_source
from imprompt.indexer.readers.columns import file_digest, remembered
from imprompt.indexer.readers.compression import CODECS, table_suffix
from imprompt.indexer.readers.csv_tables import csv_source
from imprompt.indexer.readers.json_arrays import json_source
from imprompt.indexer.readers.parquet_tables import parquet_source
from imprompt.indexer.readers.rows import Row, StreamedSource
from imprompt.indexer.readers.text_lines import json_lines_source, text_source

UNREADABLE_FILE = "unreadable file"
TEXT_SUFFIX = ".txt"
_REMARKED_FILES = 20

TABLES: dict[str, Callable[[Path, str | None], StreamedSource]] = {
    ".parquet": lambda path, column: parquet_source(path, column=column),
    ".arrow": lambda path, column: arrow_source(path, column=column),
    ".csv": lambda path, column: csv_source(path, delimiter=",", column=column),
    ".tsv": lambda path, column: csv_source(path, delimiter="\t", column=column),
    ".jsonl": lambda path, column: json_lines_source(path, column=column),
    ".json": lambda path, column: json_source(path, column=column),
    TEXT_SUFFIX: lambda path, _column: text_source(path),
}
"""How each kind of file is opened, by its suffix."""

_COLUMNAR = frozenset({".parquet", ".arrow"})
"""They are compressed inside, if at all."""

FORMS = f"{', '.join(TABLES)} (text, CSV, TSV and JSON also with {' or '.join(CODECS)})"

DESCRIPTIONS = frozenset(
    {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
)
"""What `datasets` writes beside the data."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of a corpus; `key` is its path inside the corpus, which stands before the keys of its rows."""

    key: str
    path: Path


def is_table(name: str) -> bool:
    """Whether a file of this name is of a kind that can be read."""
    path = Path(name)
    kind = table_suffix(path)
    return (
        kind in TABLES
        and path.name not in DESCRIPTIONS
        and (kind not in _COLUMNAR or path.suffix.lower() == kind)
    )


def open_table(path: Path, column: str | None) -> StreamedSource:
    """The corpus of one file.

    Raises:
        CorpusError: its kind is none of `TABLES`, or it cannot be read as its suffix says.
    """
    if not is_table(path.name):
        raise CorpusError(
            f"{path} is of no kind that can be read as a corpus.",
            path=path,
            hint=f"A table ends in {FORMS}.",
        )
    return TABLES[table_suffix(path)](path, column)


def find_tables(folder: Path) -> list[NamedFile]:
    """The tables below a folder by path, without hidden ones and `without_remarks`."""
    found: list[NamedFile] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [
            Path(place) / name for name in names if is_table(name) and not name.startswith(".")
        ]
        found += [
            NamedFile(as_utf8(path.relative_to(folder).as_posix()), path)
            for path in paths
            if path.is_file()
        ]
    return sorted(without_remarks(found), key=lambda file: file.key)


def without_remarks(files: Sequence[NamedFile]) -> list[NamedFile]:
    """The files, without texts where there is any other table: then they are licences and the like."""
    kinds = Counter(table_suffix(file.path) == TEXT_SUFFIX for file in files)
    return [file for file in files if not kinds[False] or table_suffix(file.path) != TEXT_SUFFIX]


def joined_source(
    name: str, files: Sequence[NamedFile], *, column: str | None, origin: str = ""
) -> StreamedSource:
    """Many files as one corpus, in the order given; `source_key` is the file's key, a colon, and the row's key in it.

    A file that cannot be opened counts as one rejected row, one that breaks off as so many as are
    known to be lost, at least one; the other files are read.

    Raises:
        CorpusError: not one of the files can be opened; it tells of the first.
    """
    _open_any(files, column)

    def rows(start: int) -> Iterator[Row]:
        for file in files:
            if start and start >= (held := _count(name, file, column)):
                start -= held
                continue
            yield from _rows_of(name, file, column, start)
            start = 0

    def digest() -> str:
        whole = hashlib.sha256(b"files 1")
        for file in files:
            whole.update(repr((file.key, _digest(file, column))).encode())
        return whole.hexdigest()

    def remarks() -> list[str]:
        return [remark for file in files[:_REMARKED_FILES] for remark in _remarks(file, column)]

    asked = remembered([file.path for file in files], digest)
    return StreamedSource(
        name,
        False,
        rows,
        asked,
        lambda: sum(_count(name, file, column) for file in files),
        origin,
        remarks,
    )


def _open_any(files: Sequence[NamedFile], column: str | None) -> None:
    refused: CorpusError | None = None
    for file in files:
        try:
            open_table(file.path, column)
            return
        except CorpusError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def _rows_of(name: str, file: NamedFile, column: str | None, start: int) -> Iterator[Row]:
    number = start
    try:
        for row in open_table(file.path, column).open_rows(start):
            key = f"{file.key}:{row.source_key}"
            if isinstance(row, RawPrompt):
                yield RawPrompt(row.text, name, key, row.n_submitted, row.nsfw)
            else:
                yield RejectedRow(name, key, row.reason)
            number += 1
    except CorpusError as error:
        reason = f"{UNREADABLE_FILE}: {error.message.replace(str(file.path), file.path.name)}"
        for lost in range(number, max(_promised(file, column), number + 1)):
            yield RejectedRow(name, f"{file.key}:row {lost}", reason)


def _promised(file: NamedFile, column: str | None) -> int:
    """How many rows the file says it has, 0 where it does not.

    Parquet says it even where the rows are damaged.
    """
    try:
        return open_table(file.path, column).count()
    except CorpusError:
        return 0


def _count(name: str, file: NamedFile, column: str | None) -> int:
    return _promised(file, column) or sum(1 for _ in _rows_of(name, file, column, 0))


def _remarks(file: NamedFile, column: str | None) -> list[str]:
    try:
        return open_table(file.path, column).remarks()
    except CorpusError:
        return []


def _digest(file: NamedFile, column: str | None) -> str:
    try:
        return open_table(file.path, column).fingerprint()
    except CorpusError:
        return file_digest(file.path, UNREADABLE_FILE, "")
