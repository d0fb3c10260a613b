"""Corpora of lines: text with a prompt a line, and JSON lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from core.values import RejectedRow
from indexer.columns import NSFW_COLUMN, SUBMITTED_COLUMN, choose_column, file_digest
from indexer.rows import BAD_UTF8, EMPTY, TOO_LONG, Row, StreamedSource, count_rows, judge, numbered_lines

_PEEKED_LINES = 1000


def text_source(path: Path) -> StreamedSource:
    """A prompt a line; `source_key` is "line N"."""

    def rows(start: int) -> Iterator[Row]:
        for number, line in itertools.islice(numbered_lines(path), start, None):
            key = f"line {number}"
            yield RejectedRow(path.name, key, TOO_LONG) if line is None else judge(line.rstrip(b"\r\n"), source=path.name, key=key)

    return StreamedSource(path.name, False, rows, lambda: file_digest(path, "text", ""), lambda: count_rows(rows))


def json_lines_source(path: Path, *, column: str | None) -> StreamedSource:
    """An object a line; `source_key` is "line N".

    Raises:
        CorpusError: none of the first thousand lines is an object with such a member.
    """
    members: dict[str, bool] = {}
    for _, line in itertools.islice(numbered_lines(path), _PEEKED_LINES):
        parsed = _parse(line)
        for name, value in parsed.items() if isinstance(parsed, dict) else ():
            members[name] = members.get(name, False) or isinstance(value, str)
    chosen = choose_column(path, column, list(members), texts=[name for name, is_text in members.items() if is_text])

    def rows(start: int) -> Iterator[Row]:
        for number, line in itertools.islice(numbered_lines(path), start, None):
            key = f"line {number}"
            parsed = _parse(line)
            if isinstance(parsed, str):
                yield RejectedRow(path.name, key, parsed)
            else:
                submitted, nsfw = parsed.get(SUBMITTED_COLUMN, 1), parsed.get(NSFW_COLUMN)
                yield judge(parsed.get(chosen), source=path.name, key=key, n_submitted=submitted, nsfw=nsfw)

    return StreamedSource(path.name, False, rows, lambda: file_digest(path, "jsonl", chosen), lambda: count_rows(rows))


def _parse(line: bytes | None) -> dict[str, object] | str:
    """The object of a line, or the reason why there is none."""
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
        return "not JSON"
    return parsed if isinstance(parsed, dict) else "not a JSON object"
