"""The texts of one version, read from DuckDB, and the digest that is the same wherever the rows are."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from imprompt.core.errors import Checksum, StoreError, UnknownRow, first_line
from imprompt.core.values import Condition, Ids, Prompt
from imprompt.store.databases import (
    STORED,
    Setting,
    UnexpectedContent,
    check_no_macros,
    check_tables,
    read_database,
    stored_form,
)
from imprompt.store.prompt_phrases import FREQUENT_PHRASES

COLUMNS_1_0 = (
    "row_id",
    "prompt_key",
    "text",
    "embedded_text",
    "source",
    "source_key",
    "n_submitted",
    "group_id",
)
COLUMNS = (*COLUMNS_1_0, "n_duplicates")
"""The columns of `prompts` in the order of `imprompt.core.values.Prompt`; versions of format 1.0 lack the last."""

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TYPES = {
    name: "BIGINT" if name in ("row_id", "n_submitted", "group_id", "n_duplicates") else "VARCHAR"
    for name in COLUMNS
}
_FORMS = [_TYPES, {name: _TYPES[name] for name in COLUMNS_1_0}]
"""What the table of a `prompts.duckdb` looks like; see `imprompt.store.databases.stored_form`."""

_PROMPTS = f"{STORED}.main.prompts"
_DIGEST_ROWS = 10_000
_MEMORY = "25%"
"""Of what the machine, or its container, has;

DuckDB alone would take 80 %, beside a model that needs most of it.
"""


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Map what DuckDB says of a file it cannot read to `Checksum`."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise StoreError(
            f"{path} cannot be read: it takes more than {_MEMORY} of this machine's memory."
        ) from error
    except duckdb.Error as error:
        raise Checksum(
            f"{path} cannot be read: {first_line(error)}.", path=path, hint="Build the index again."
        ) from error


def prompt_columns(
    connection: DuckDBPyConnection, path: Path, *, thorough: bool = True
) -> tuple[str, ...]:
    """The columns of `stored.main.prompts` in a file that `imprompt.store.databases.read_database` opened: `COLUMNS`, or `COLUMNS_1_0`.

    Args:
        thorough: the file may hold nothing else.

    Raises:
        Checksum: it holds no table of prompts, or another one.
    """
    try:
        there = stored_form(connection, "prompts", _FORMS)
        if thorough:
            check_no_macros(connection, STORED)
            check_tables(connection, STORED, {"prompts": _FORMS})
    except UnexpectedContent as error:
        raise Checksum(
            f"{path} is not a file of prompts: {error}.", path=path, hint="Build the index again."
        ) from error
    return tuple(there)


def duckdb_config() -> dict[str, Setting]:
    """A bound on memory, and a place for what does not fit: by default that were a folder inside of the version."""
    return {"memory_limit": _MEMORY, "temp_directory": _temporary_folder()}


@cache
def _temporary_folder() -> str:
    return f"{tempfile.gettempdir()}/imprompt-{uuid.uuid4().hex}"


class DuckPrompts:
    """A `imprompt.core.protocols.PromptStore` over a finished `prompts.duckdb`, opened read-only. Safe to use from several threads.

    Args:
        thorough: refuse the file also where it holds more than the prompts, which nothing here
            would read.

    Raises:
        Checksum: the file is missing, damaged or has no table of prompts; also from every method,
            where the damage shows later.
    """

    def __init__(self, path: Path, *, thorough: bool = False) -> None:
        self.path = path
        with _damage(path):
            # DuckDB would open the file's write-ahead log with it; a published version has none.
            self._connection = read_database(path, duckdb_config())
        try:
            with _damage(path):
                there = prompt_columns(self._connection, path, thorough=thorough)
                self._columns = ", ".join(there)
                self._table = (
                    _PROMPTS
                    if COLUMNS[-1] in there
                    else f"(SELECT *, 0::BIGINT AS n_duplicates FROM {_PROMPTS})"  # noqa: S608 constants
                )
                self._rows = int(
                    self._fetch(f"SELECT count(*) FROM (SELECT {self._columns} FROM {_PROMPTS})")[  # noqa: S608 constants
                        0
                    ][0]
                )
        except BaseException:
            self._connection.close()
            raise

    def __len__(self) -> int:
        return self._rows

    def get_many(self, row_ids: Sequence[int] | Ids) -> list[Prompt]:
        """The prompts in the order asked for, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
            Checksum: the file is damaged.
        """
        ids = [int(row_id) for row_id in row_ids]
        wrong = next((row_id for row_id in ids if not 0 <= row_id < self._rows), None)
        if wrong is not None:
            raise UnknownRow(f"Row {wrong} is outside of 0 to {self._rows - 1}.")
        # A join with the list: 8 ms for 10 of 2 million rows, where a list written into the
        # statement takes 250 ms.
        found = self._fetch(
            f"SELECT {self._columns} FROM {_PROMPTS} WHERE row_id IN (SELECT unnest(?::BIGINT[]))",  # noqa: S608 constants
            ids,
        )
        prompts = {row[0]: Prompt(*row) for row in found}
        if len(prompts) != len(set(ids)):
            raise Checksum(
                f"{self.path} lacks rows it should have.",
                path=self.path,
                hint="Build the index again.",
            )
        return [prompts[row_id] for row_id in ids]

    def by_key(self, prompt_key: str) -> Prompt | None:
        """The prompt of that stable name, or None where the version has none; a scan, so for a few, not for many.

        Raises:
            Checksum: the file is damaged.
        """
        statement = (
            f"SELECT {self._columns} FROM {_PROMPTS} WHERE prompt_key = ? ORDER BY row_id LIMIT 1"  # noqa: S608 constants
        )
        return next((Prompt(*row) for row in self._fetch(statement, prompt_key)), None)

    def rows_of(self, prompt_keys: Collection[str]) -> Ids:
        """The row ids of the prompts with these keys, rising; keys that no prompt has are passed over.

        Raises:
            Checksum: the file is damaged.
        """
        statement = f"SELECT row_id FROM {_PROMPTS} WHERE prompt_key IN (SELECT unnest(?::VARCHAR[])) ORDER BY row_id"  # noqa: S608 constants
        return np.array(
            [row[0] for row in self._fetch(statement, list(prompt_keys))], dtype=np.int64
        )

    def embedded_texts(self, start: int, stop: int) -> list[str]:
        """What the encoder is to see of the rows `start` to `stop` - 1, in row order;

        `stop` is cut at the end.
        """
        statement = (
            f"SELECT embedded_text FROM {_PROMPTS} WHERE row_id >= ? AND row_id < ? ORDER BY row_id"  # noqa: S608 constants
        )
        return [row[0] for row in self._fetch(statement, start, stop)]

    def matching(self, condition: Condition) -> Ids:
        """The row ids of the prompts that a condition is true of, rising.

        Raises:
            Checksum: the file is damaged.
        """
        statement = f"SELECT row_id FROM {self._table} WHERE {condition.sql} ORDER BY row_id"  # noqa: S608 holds no text of a user
        with _damage(self.path), self._connection.cursor() as cursor:
            found = cursor.execute(statement, condition.values).fetchnumpy()["row_id"]
        return np.asarray(found, dtype=np.int64)

    def group_sizes(self, group_ids: Sequence[int]) -> dict[int, int]:
        """For each group, how many prompts of the corpora it stands for: its members here, and those folded into them."""
        statement = (
            f"SELECT group_id, count(*) + sum(n_duplicates)::BIGINT FROM {self._table} "  # noqa: S608 constants
            "WHERE group_id IN (SELECT unnest(?::BIGINT[])) GROUP BY group_id"
        )
        return dict(self._fetch(statement, sorted(set(group_ids))))

    def frequent_phrases(self, limit: int) -> list[tuple[str, int]]:
        """At most `limit` phrases that the prompts are put together from, with how often each was submitted, falling.

        Prompts are split at commas, ends of sentences and weights; brackets and tags go. A phrase
        is lower case, of 2 to 60 characters and up to 7 words, with no more digits than letters,
        and stands in prompts of 3 different beginnings.

        Raises:
            Checksum: the file is damaged.
        """
        return [(str(phrase), int(n)) for phrase, n in self._fetch(FREQUENT_PHRASES, limit)]

    def digest(self) -> str:
        """sha256 (64 hex digits) over the rows in row order, each as a JSON array of the columns that are there, in the order of
        `COLUMNS`, and a line feed.

        DuckDB's bytes differ from run to run, this does not.
        """
        encoder = msgspec.json.Encoder()
        digest = hashlib.sha256()
        for row in self._scan():
            digest.update(encoder.encode(row))
            digest.update(b"\n")
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the file; calling it again does nothing."""
        self._connection.close()

    def __enter__(self) -> DuckPrompts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _scan(self) -> Iterator[tuple[Any, ...]]:
        with _damage(self.path), self._connection.cursor() as cursor:
            # Range by range: 428 MB for 1 million rows in the time of one sort over all, which
            # takes 998 MB, or spills to disk.
            statement = f"SELECT {self._columns} FROM {_PROMPTS} WHERE row_id >= ? AND row_id < ? ORDER BY row_id"  # noqa: S608 constants
            for start in range(0, self._rows, _DIGEST_ROWS):
                yield from cursor.execute(statement, [start, start + _DIGEST_ROWS]).fetchall()

    def _fetch(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with _damage(self.path), self._connection.cursor() as cursor:
            return cursor.execute(statement, values).fetchall()
