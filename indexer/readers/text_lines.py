"""Corpora of lines: text with a prompt a line, and JSON with an object a line."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from imprompt.core.text import as_utf8
from imprompt.core.values import RejectedRow
from imprompt.indexer.readers.columns import choose_column, file_source, judge_cells
from imprompt.indexer.readers.rows import (
    BAD_UTF8,
    EMPTY,
    TOO_LONG,
    Row,
    StreamedSource,
    judge,
    numbered_lines,
)

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not a JSON object"

_PEEKED_OBJECTS = 1000

KeyedObject: TypeAlias = tuple[str, dict[str, Any] | str]
"""`source_key` and the object, or the reason why there is none."""


def text_source(path: Path) -> StreamedSource:
    """Read a prompt a line; `source_key` is "line N"."""
    name = as_utf8(path.name)

    def rows(start: int) -> Iterator[Row]:
        for number, line in itertools.islice(numbered_lines(path), start, None):
            key = f"line {number}"
            if line is None:
                yield RejectedRow(name, key, TOO_LONG)
            else:
                yield judge(line.rstrip(b"\r\n"), source=name, key=key)

    return file_source(path, "text", "", rows)


def json_lines_source(path: Path, *, column: str | None) -> StreamedSource:
    """Read an object a line; `source_key` is "line N".

    Raises:
        CorpusError: none of the first thousand lines is an object with such a member.
    """
    return objects_source(path, "jsonl", lambda: _line_objects(path), column=column)


def objects_source(
    path: Path, kind: str, objects: Callable[[], Iterator[KeyedObject]], *, column: str | None
) -> StreamedSource:
    """Read a file of JSON objects; `kind` goes into the fingerprint.

    Raises:
        CorpusError: none of the first thousand is an object with such a member.
    """
    holds_text: dict[str, bool] = {}
    for _, item in itertools.islice(objects(), _PEEKED_OBJECTS):
        for member, value in item.items() if isinstance(item, dict) else ():
            holds_text[member] = holds_text.get(member, False) or isinstance(value, str)
    texts = [member for member, is_text in holds_text.items() if is_text]
    chosen = choose_column(path, column, list(holds_text), texts=texts)
    name = as_utf8(path.name)

    def rows(start: int) -> Iterator[Row]:
        for key, item in itertools.islice(objects(), start, None):
            if isinstance(item, str):
                yield RejectedRow(name, key, item)
            else:
                yield judge_cells(item.get(chosen), item, source=name, key=key)

    return file_source(path, kind, chosen, rows)


def _line_objects(path: Path) -> Iterator[KeyedObject]:
    return ((f"line {number}", parse_object(line)) for number, line in numbered_lines(path))


def parse_object(line: bytes | None) -> dict[str, Any] | str:
    """Return a line's JSON object, or why it is not one; the line is None if it is too long."""
    import msgspec

    if line is None:
        return TOO_LONG
    if not line or line.isspace():
        return EMPTY
    try:
        parsed = msgspec.json.decode(line)
    except UnicodeDecodeError:
        return BAD_UTF8
    except (msgspec.DecodeError, RecursionError):
        return NOT_JSON
    return parsed if isinstance(parsed, dict) else NOT_AN_OBJECT
