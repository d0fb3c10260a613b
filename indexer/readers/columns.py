"""What readers of single files share: the column of the prompts, fingerprint and source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from imprompt.core.atomic_files import sha256_file
from imprompt.core.errors import CorpusError
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.rows import OpenRows, Row, StreamedSource, count_rows, judge, reading

_T = TypeVar("_T")

DEFAULT_COLUMN = "prompt"
SUBMITTED_COLUMN = "n_submitted"
NSFW_COLUMN = "prompt_nsfw"
EXTRA_COLUMNS = (SUBMITTED_COLUMN, NSFW_COLUMN)
"""Columns that are read with the prompt if a table has them; never guessed to hold prompts."""

_IMAGE_FILES = ("_file_name", "_file_names")
"""Endings of the columns with a row's image files, in the metadata of an image folder."""

_PARSING_VERSION = "readers 1"
"""Part of every fingerprint.

Increment it when row parsing changes, so that no build resumes across the change.
"""


def choose_column(
    path: Path, asked: str | None, columns: Sequence[str], *, texts: Sequence[str]
) -> str:
    """Return the column asked for, else `prompt`, else the only text column.

    Columns that name image files (`file_name`) are never guessed to hold prompts.

    Args:
        path: for the message.
        asked: by the user; None leaves the choice to the file.
        columns: all of the file.
        texts: those that hold text.

    Raises:
        CorpusError: the column does not exist, does not hold text, or cannot be told; the message
            lists the columns.
    """
    names = ", ".join(columns) or "none"
    guesses = [name for name in texts if not f"_{name}".endswith(_IMAGE_FILES)]
    column = DEFAULT_COLUMN if asked is None else asked
    if columns.count(column) > 1:
        problem = f"{path} has {columns.count(column)} columns {column!r}."
        hint = "Give the columns different names."
    elif column in texts:
        return column
    elif column in columns:
        problem = f"Column {column!r} of {path} does not hold text."
        hint = "Name another one with --column."
    elif asked is not None:
        problem = f"{path} has no column {column!r}; it has: {names}."
        hint = "Name one of them with --column."
    elif len(guesses) == 1:
        return guesses[0]
    else:
        problem = (
            f"{path} has no column {column!r}, and no single text column to use instead; "
            f"it has: {names}."
        )
        hint = "Name the column of the prompts with --column."
    raise CorpusError(problem, path=path, hint=hint)


def judge_cells(prompt: object, extra: Mapping[str, Any], *, source: str, key: str) -> Row:
    """Judge a row by its prompt and its cells of `EXTRA_COLUMNS`."""
    return judge(
        prompt,
        source=source,
        key=key,
        n_submitted=extra.get(SUBMITTED_COLUMN, 1),
        nsfw=extra.get(NSFW_COLUMN),
    )


def file_source(
    path: Path,
    kind: str,
    column: str,
    rows: OpenRows,
    *,
    count: Callable[[], int] | None = None,
    remarks: Callable[[], list[str]] = list,
) -> StreamedSource:
    """Return the source of one file.

    Args:
        kind: of reader; with `column` and the bytes it makes the fingerprint.
        rows: opens the rows, from a given one on.
        count: of the rows; None reads them all.
        remarks: see `StreamedSource`.
    """
    digest = cached([path], lambda: file_digest(path, kind, column))
    count = count or (lambda: count_rows(rows))
    return StreamedSource(as_utf8(path.name), False, rows, digest, count, remarks=remarks)


def cached(paths: Iterable[Path], compute: Callable[[], _T]) -> Callable[[], _T]:
    """Return `compute`, called again only if a file's length, times or inode have changed.

    A build asks twice, before it reads and after, to notice a corpus that changes meanwhile.
    """
    watched = tuple(paths)
    known: dict[tuple[object, ...], _T] = {}

    def current() -> _T:
        stamp = tuple(_stamp(path) for path in watched)
        if stamp not in known:
            known.clear()
            known[stamp] = compute()
        return known[stamp]

    return current


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def file_digest(path: Path, kind: str, column: str) -> str:
    """Return the fingerprint of a file's bytes and how they are read; path and times do not count.

    Raises:
        CorpusError: the file cannot be read.
    """
    with reading(path):
        content = sha256_file(path)
    return hashlib.sha256("\n".join((_PARSING_VERSION, kind, column, content)).encode()).hexdigest()
