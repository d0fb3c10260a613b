"""Corpora in `.json`: an array of objects or prompts, read item by item, or JSON lines."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from imprompt.core.errors import CorpusError
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.columns import file_source
from imprompt.indexer.readers.compression import DamagedStream, most_rows
from imprompt.indexer.readers.rows import MAX_LINE_BYTES, Row, StreamedSource, judge, open_file
from imprompt.indexer.readers.text_lines import (
    NOT_AN_OBJECT,
    KeyedObject,
    json_lines_source,
    objects_source,
)

_READ_BYTES = 1 << 16
_SIGN = re.compile(r"[^ \t\r\n]")


def json_source(path: Path, *, column: str | None) -> StreamedSource:
    """Read an array of objects or prompts; else an object a line.

    `source_key` is "item N", counted from 0, or "line N".

    Raises:
        CorpusError: none of the first thousand is an object with such a member, or the file is cut
            off before the first.
    """
    with open_file(path) as file:
        text = _Text(file, path)
        if text.next_sign() != "[":
            return json_lines_source(path, column=column)
        text.skip()
        if text.next_sign() == '"':
            return _texts_source(path)
    return objects_source(path, "json", lambda: _items(path), column=column)


def _texts_source(path: Path) -> StreamedSource:
    """Read an array of prompts."""
    name = as_utf8(path.name)

    def rows(start: int) -> Iterator[Row]:
        for number, item in itertools.islice(_values(path), start, None):
            yield judge(item, source=name, key=f"item {number}")

    return file_source(path, "json texts", "", rows)


def _items(path: Path) -> Iterator[KeyedObject]:
    """Yield the objects of the array; raises as `_values`."""
    for number, item in _values(path):
        yield f"item {number}", item if isinstance(item, dict) else NOT_AN_OBJECT


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of the array.

    Raises:
        CorpusError: an item is cut off, not JSON or too long to be held; the items after it cannot
            be told apart.
    """
    with open_file(path) as file:
        limit = most_rows(path)
        text = _Text(file, path)
        text.skip()  # the opening bracket
        number = 0
        while (sign := text.next_sign()) != "]":
            if sign == "," and number:
                text.skip()
            if number >= limit:
                raise DamagedStream(
                    f"it has more than {limit:,} items for its length; unpacked, any number is read"
                )
            yield number, text.value(number)
            number += 1


class _Text:
    """A window onto the text of a file; bad bytes come as lone surrogates."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._values = json.JSONDecoder(parse_constant=float)
        self._window = ""
        self._at = 0
        self._ended = False

    def next_sign(self) -> str:
        """Return the next character that is not white space; "" at the end of the file."""
        while (sign := _SIGN.search(self._window, self._at)) is None and not self._ended:
            self._at = len(self._window)
            self._more(_READ_BYTES)
        self._at = len(self._window) if sign is None else sign.start()
        return self._window[self._at : self._at + 1]

    def skip(self) -> None:
        """Skip the character that `next_sign` returned."""
        self.next_sign()
        self._at += 1

    def value(self, number: int) -> Any:
        """Return the next JSON value, which is item `number`."""
        self.next_sign()
        while True:
            held = len(self._window) - self._at
            try:
                value, end = self._values.raw_decode(self._window, self._at)
                if end < len(self._window) or self._ended:  # else a number may continue
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._ended or held > MAX_LINE_BYTES or isinstance(error, RecursionError):
                    raise self._damaged(number) from error
            # Twice as much each time: an item is parsed a few times at most.
            self._more(max(held, _READ_BYTES))

    def _more(self, size: int) -> None:
        content = self._file.read(size)
        self._ended = not content
        self._window = self._window[self._at :] + self._decoder.decode(content, final=self._ended)
        self._at = 0

    def _damaged(self, number: int) -> CorpusError:
        return CorpusError(
            f"{self._path} cannot be read beyond item {number}: it is cut off, not JSON, "
            f"or longer than {MAX_LINE_BYTES >> 20} MiB.",
            path=self._path,
            hint="Write the file again, preferably as JSON lines.",
        )
