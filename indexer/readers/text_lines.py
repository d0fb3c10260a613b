"""Corpora of lines: text with a prompt a line, and JSON with an object a line."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from imprompt.core.text import as_utf8
from imprompt.core.values import RejectedRow
from imprompt.indexer.readers.columns import (
    NSFW_COLUMN,
    SUBMITTED_COLUMN,
    choose_column,
    file_digest,
    remembered,
)
from imprompt.indexer.readers.rows import (
    BAD_UTF8,
    EMPTY,
    TOO_LONG,
    Row,
    StreamedSource,
    count_rows,
    judge,
    numbered_lines,
)

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not a JSON object"

_PEEKED_OBJECTS = 1000

KeyedObject: TypeAlias = tuple[str, dict[str, Any] | str]
"""`source_key` and the object there, or the reason why there is none."""


def text_source(path: Path) -> StreamedSource:
    """A prompt a line; `source_key` is "line N"."""

    def rows(start: int) -> Iterator[Row]:
        for number, line in itertools.islice(numbered_lines(path), start, None):
            key = f"line {number}"
            yield (
                RejectedRow(as_utf8(path.name), key, TOO_LONG)
                if line is None
                else judge(line.rstrip(b"\r\n"), source=as_utf8(path.name), key=key)
            )

    digest = remembered([path], lambda: file_digest(path, "text", ""))
    return StreamedSource(as_utf8(path.name), False, rows, digest, lambda: count_rows(rows))


def json_lines_source(path: Path, *, column: str | None) -> StreamedSource:
    """An object a line; `source_key` is "line N".

    Raises:
        CorpusError: none of the first thousand lines is an object with such a member.
    """
    return objects_source(path, "jsonl", lambda: _line_objects(path), column=column)


def objects_source(
    path: Path, kind: str, objects: Callable[[], Iterator[KeyedObject]], *, column: str | None
) -> StreamedSource:
    """The corpus of a file that holds JSON objects; `kind` goes into the fingerprint.

    Raises:
        CorpusError: none of the first thousand is an object with such a member.
    """
    members: dict[str, bool] = {}
    for _, found in itertools.islice(objects(), _PEEKED_OBJECTS):
        for name, value in found.items() if isinstance(found, dict) else ():
            members[name] = members.get(name, False) or isinstance(value, str)
    chosen = choose_column(
        path, column, list(members), texts=[name for name, is_text in members.items() if is_text]
    )

    def rows(start: int) -> Iterator[Row]:
        for key, found in itertools.islice(objects(), start, None):
            if isinstance(found, str):
                yield RejectedRow(as_utf8(path.name), key, found)
            else:
                submitted, nsfw = found.get(SUBMITTED_COLUMN, 1), found.get(NSFW_COLUMN)
                yield judge(
                    found.get(chosen),
                    source=as_utf8(path.name),
                    key=key,
                    n_submitted=submitted,
                    nsfw=nsfw,
                )

    digest = remembered([path], lambda: file_digest(path, kind, chosen))
    return StreamedSource(as_utf8(path.name), False, rows, digest, lambda: count_rows(rows))


def _line_objects(path: Path) -> Iterator[KeyedObject]:
    return ((f"line {number}", _parse(line)) for number, line in numbered_lines(path))


def _parse(line: bytes | None) -> dict[str, Any] | str:
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
