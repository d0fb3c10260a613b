"""Tables in files: single ones by their suffix, and many joined into one corpus."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import CorpusError
from imprompt.core.text import as_utf8
from imprompt.core.values import RawPrompt, RejectedRow
from imprompt.indexer.readers.arrow_tables import arrow_source
from imprompt.indexer.readers.columns import cached, file_digest
from imprompt.indexer.readers.compression import CODECS, table_suffix
from imprompt.indexer.readers.csv_tables import csv_source
from imprompt.indexer.readers.json_arrays import json_source
from imprompt.indexer.readers.parquet_tables import parquet_source
from imprompt.indexer.readers.rows import Row, StreamedSource
from imprompt.indexer.readers.text_lines import json_lines_source, text_source
from imprompt.indexer.readers.webdatasets import webdataset_source

UNREADABLE_FILE = "unreadable file"
TEXT_SUFFIX = ".txt"
ARCHIVE_SUFFIX = ".tar"
_REMARKED_FILES = 20

TABLES: dict[str, Callable[[Path, str | None], StreamedSource]] = {
    ".parquet": lambda path, column: parquet_source(path, column=column),
    ".arrow": lambda path, column: arrow_source(path, column=column),
    ".csv": lambda path, column: csv_source(path, delimiter=",", column=column),
    ".tsv": lambda path, column: csv_source(path, delimiter="\t", column=column),
    ".jsonl": lambda path, column: json_lines_source(path, column=column),
    ".json": lambda path, column: json_source(path, column=column),
    TEXT_SUFFIX: lambda path, _column: text_source(path),
    ARCHIVE_SUFFIX: lambda path, column: webdataset_source(path, column=column),
}
"""How each kind of file is opened, by its suffix."""

_NEVER_COMPRESSED = frozenset({".parquet", ".arrow", ARCHIVE_SUFFIX})
"""Kinds that are not read compressed: `.parquet.gz` is no table."""

FORMS = f"{', '.join(TABLES)} (text, CSV, TSV and JSON also with {' or '.join(CODECS)})"

DESCRIPTIONS = frozenset(
    {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
)
"""Metadata files that the library `datasets` writes."""

_CACHED = re.compile(r"cache-[0-9a-f]{16}(_\d{5}_of_\d{5})?\.arrow")
"""Cached results of `map` and `filter`, which `datasets` puts beside the saved tables."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of a corpus; `key` is its path inside it, the prefix of its rows' keys."""

    key: str
    path: Path


def is_table(name: str) -> bool:
    """Tell whether a file of this name is of a kind that can be read."""
    path = Path(name)
    kind = table_suffix(path)
    return (
        kind in TABLES
        and path.name not in DESCRIPTIONS
        and (kind not in _NEVER_COMPRESSED or path.suffix.lower() == kind)
    )


def is_data(name: str) -> bool:
    """Return whether a file found in a folder or a data set holds its prompts."""
    path = Path(name)
    is_hidden = any(part.startswith(".") for part in path.parts)
    return is_table(name) and not is_hidden and not _CACHED.fullmatch(path.name)


def outranked(kinds: Iterable[str]) -> frozenset[str]:
    """Return the kinds that are not read beside the others.

    Archives beside a table hold its images; JSON and text beside archives are counts and notes.
    """
    here = frozenset(kinds)
    if here - {ARCHIVE_SUFFIX, TEXT_SUFFIX, ".json"}:
        return frozenset({ARCHIVE_SUFFIX})
    return frozenset({TEXT_SUFFIX, ".json"} if ARCHIVE_SUFFIX in here else ())


def open_table(path: Path, column: str | None) -> StreamedSource:
    """Open the corpus of one file.

    Raises:
        CorpusError: its kind is not in `TABLES`, or it cannot be read as that kind.
    """
    if not is_table(path.name):
        raise CorpusError(
            f"{path} is not in a supported corpus format.",
            path=path,
            hint=f"A table ends in {FORMS}.",
        )
    return TABLES[table_suffix(path)](path, column)


def find_tables(folder: Path) -> list[NamedFile]:
    """Return the tables below a folder by path, without hidden ones and those `outranked`.

    Texts count only if there is no other table: else they are licences and the like.
    """
    files: list[NamedFile] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent) / name
            if is_data(name) and path.is_file():
                files.append(NamedFile(as_utf8(path.relative_to(folder).as_posix()), path))
    without = outranked(table_suffix(file.path) for file in files)
    files = [file for file in files if table_suffix(file.path) not in without]
    others = [file for file in files if table_suffix(file.path) != TEXT_SUFFIX]
    return sorted(others or files, key=lambda file: file.key)


def joined_source(
    name: str, files: Sequence[NamedFile], *, column: str | None, origin: str = ""
) -> StreamedSource:
    """Join files into one corpus in the given order; `source_key` is "FILE:KEY".

    A file that cannot be opened counts as one rejected row, one that ends early as the rows known
    to be lost, at least one; the other files are read.

    Raises:
        CorpusError: none of the files can be opened; the error is the first one's.
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

    def count() -> int:
        return sum(_count(name, file, column) for file in files)

    fingerprint = cached([file.path for file in files], digest)
    return StreamedSource(name, False, rows, fingerprint, count, origin, remarks)


def _open_any(files: Sequence[NamedFile], column: str | None) -> None:
    first: CorpusError | None = None
    for file in files:
        try:
            open_table(file.path, column)
            return
        except CorpusError as error:
            first = first or error
    if first is not None:
        raise first


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
        for lost in range(number, max(_stated_count(file, column), number + 1)):
            yield RejectedRow(name, f"{file.key}:row {lost}", reason)


def _stated_count(file: NamedFile, column: str | None) -> int:
    """Return the number of rows by the file itself; 0 if it cannot be opened.

    Parquet states it even if the rows are damaged.
    """
    try:
        return open_table(file.path, column).count()
    except CorpusError:
        return 0


def _count(name: str, file: NamedFile, column: str | None) -> int:
    return _stated_count(file, column) or sum(1 for _ in _rows_of(name, file, column, 0))


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
