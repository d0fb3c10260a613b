"""The prompts of one version, read from DuckDB, and a digest of them."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from imprompt.core.errors import Checksum, StoreError, UnknownRow, first_line
from imprompt.core.predicates import Predicate
from imprompt.core.values import Ids, Parameters, Prompt
from imprompt.store.databases import (
    STORED,
    Setting,
    UnexpectedContent,
    check_no_macros,
    check_stored_table,
    check_tables,
    read_database,
)
from imprompt.store.duckdb_import import import_duckdb
from imprompt.store.generation_parameters import PARAMETER_COLUMNS, has_parameters, read_parameters
from imprompt.store.layout import REBUILD
from imprompt.store.predicate_sql import compile_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COLUMNS = {
    "row_id": "BIGINT",
    "prompt_key": "VARCHAR",
    "text": "VARCHAR",
    "embedded_text": "VARCHAR",
    "source": "VARCHAR",
    "source_key": "VARCHAR",
    "n_submitted": "BIGINT",
    "group_id": "BIGINT",
    "n_duplicates": "BIGINT",
}
"""The columns of `prompts` and their types, in the order of `imprompt.core.values.Prompt`."""

_LISTED = ", ".join(COLUMNS)
_PROMPTS = f"{STORED}.main.prompts"
_PARAMETERS = f"{STORED}.main.parameters"
_DIGEST_ROWS = 10_000
_MEMORY = "25%"
"""Of the machine's, or its container's. DuckDB's default is 80 %, but a model needs most of it."""

_LEAST_BEGINNINGS = 3
"""A phrase counts if it stands in prompts of at least so many different beginnings.

One user's variations of one picture share their beginning, and the subject of a prompt is its
beginning; what is left are the words that people add to any subject.
"""
_LONGEST_CHARS = 60
_MOST_WORDS = 7

_FREQUENT_PHRASES = rf"""
WITH split AS (
    SELECT n_submitted, regexp_split_to_array(
        regexp_replace(regexp_replace(regexp_replace(regexp_replace(lower(text),
            '<[^<>]*>', ',', 'g'),                        -- <lora:name:1>
            '--[a-z]+(\s+[^\s,]+)?', ',', 'g'),           -- Midjourney's --ar 3:2
            ':+\s*-?[0-9]*\.?[0-9]+|::', ',', 'g'),       -- the weight of (words:1.2) and words::2
            '[\[\](){{}}\\"*_#^~]+', ' ', 'g'),
        '[,;|\n\r•·]+|[.!?]+(\s|$)') AS parts
    FROM {STORED}.main.prompts
), trimmed AS (
    SELECT n_submitted, list_filter(
        list_transform(parts, lambda part:
            trim(regexp_replace(part, '\s+', ' ', 'g'), ' .!?:-''+/&=')),
        lambda part: part <> '') AS parts
    FROM split
), said AS (
    SELECT unnest(list_distinct(parts)) AS phrase, hash(parts[1]) AS beginning, n_submitted
    FROM trimmed
), by_beginning AS (
    SELECT phrase, sum(n_submitted) AS n FROM said
    WHERE length(phrase) BETWEEN 2 AND {_LONGEST_CHARS}
        AND length(phrase) - length(replace(phrase, ' ', '')) < {_MOST_WORDS}
    GROUP BY phrase, beginning
)
SELECT phrase, sum(n)::BIGINT AS n FROM by_beginning
WHERE length(regexp_replace(phrase, '\P{{L}}', '', 'g'))
    >= greatest(1, length(regexp_replace(phrase, '[^0-9]', '', 'g')))
GROUP BY phrase HAVING count(*) >= {_LEAST_BEGINNINGS}
ORDER BY n DESC, phrase LIMIT ?
"""  # noqa: S608 constants
"""28 s and 1 GB for 1.9 million prompts on one core; beyond its memory, DuckDB writes to disk."""


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Map DuckDB's errors about a file that it cannot read to `Checksum`."""
    duckdb = import_duckdb()
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise StoreError(
            f"{path} cannot be read: it takes more than {_MEMORY} of this machine's memory."
        ) from error
    except duckdb.Error as error:
        raise Checksum(
            f"{path} cannot be read: {first_line(error)}.", path=path, hint=REBUILD
        ) from error


def check_prompts(connection: DuckDBPyConnection, path: Path, *, thorough: bool = True) -> None:
    """Check the table of prompts in a file that `imprompt.store.databases.read_database` opened.

    Args:
        thorough: the file may hold nothing else but a table of generation parameters.

    Raises:
        Checksum: it holds no table of prompts, or another one.
    """
    try:
        check_stored_table(connection, "prompts", COLUMNS)
        if thorough:
            check_no_macros(connection, STORED)
            check_tables(connection, STORED, {"prompts": COLUMNS, "parameters": PARAMETER_COLUMNS})
    except UnexpectedContent as error:
        raise Checksum(
            f"{path} is not a file of prompts: {error}.", path=path, hint=REBUILD
        ) from error


def duckdb_config() -> dict[str, Setting]:
    """Return a bound on memory, and a folder outside of the version for what does not fit."""
    return {"memory_limit": _MEMORY, "temp_directory": _temporary_folder()}


@cache
def _temporary_folder() -> str:
    return f"{tempfile.gettempdir()}/imprompt-{uuid.uuid4().hex}"


class RowsDigest:
    """The sha256 of rows, as `DuckPrompts.digest` hashes them."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._digest = hashlib.sha256()

    def add(self, row: Sequence[Any]) -> None:
        """Take the columns of the next row."""
        self._digest.update(self._encoder.encode(row) + b"\n")

    def hexdigest(self) -> str:
        """Return 64 hex digits."""
        return self._digest.hexdigest()


class DuckPrompts:
    """A `imprompt.core.protocols.PromptStore` over a finished `prompts.duckdb`, read-only.

    Safe to use from threads.

    Args:
        thorough: also refuse a file that holds more than the prompts, which nothing here reads.
        parameters: whether rows have generation parameters, as the manifest says; None looks.

    Raises:
        Checksum: the file is missing, damaged or has no table of prompts; also from every method,
            where the damage shows later.
    """

    def __init__(
        self, path: Path, *, thorough: bool = False, parameters: bool | None = None
    ) -> None:
        self.path = path
        with _damage(path):
            # DuckDB would open the file's write-ahead log with it; a published version has none.
            self._connection = read_database(path, duckdb_config())
        try:
            with _damage(path):
                check_prompts(self._connection, path, thorough=thorough)
                statement = f"SELECT count(*) FROM (SELECT {_LISTED} FROM {_PROMPTS})"  # noqa: S608 constants
                self._rows = int(self._fetch(statement)[0][0])
                # Not looked for where there is none: that would be a tenth of opening an index.
                self._has_parameters = parameters is not False and has_parameters(
                    self._connection, path
                )
                if parameters and not self._has_parameters:
                    raise Checksum(
                        f"{path} lacks its generation parameters.", path=path, hint=REBUILD
                    )
        except BaseException:
            self._connection.close()
            raise

    def __len__(self) -> int:
        return self._rows

    def get_many(self, row_ids: Sequence[int] | Ids) -> list[Prompt]:
        """Return the prompts in the order asked for, repeats included.

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
        statement = f"SELECT {_LISTED} FROM {_PROMPTS} WHERE row_id IN (SELECT unnest(?::BIGINT[]))"  # noqa: S608 constants
        prompts = {row[0]: Prompt(*row) for row in self._fetch(statement, ids)}
        if len(prompts) != len(set(ids)):
            raise Checksum(f"{self.path} lacks rows it should have.", path=self.path, hint=REBUILD)
        return [prompts[row_id] for row_id in ids]

    def parameters(self, row_ids: Sequence[int] | Ids) -> dict[int, Parameters]:
        """Return the generation parameters of those rows that have any, by row id.

        Raises:
            Checksum: the file is damaged.
        """
        if not self._has_parameters:
            return {}
        ids = [int(row_id) for row_id in row_ids]
        listed = ", ".join(PARAMETER_COLUMNS)
        statement = (
            f"SELECT {listed} FROM {_PARAMETERS} WHERE row_id IN (SELECT unnest(?::BIGINT[]))"  # noqa: S608 constants
        )
        return {
            row_id: read_parameters(negative, settings, path=self.path)
            for row_id, negative, settings in self._fetch(statement, ids)
        }

    @property
    def n_parameters(self) -> int:
        """How many rows have generation parameters."""
        if not self._has_parameters:
            return 0
        return int(self._fetch(f"SELECT count(*) FROM {_PARAMETERS}")[0][0])  # noqa: S608 constants

    def by_key(self, prompt_key: str) -> Prompt | None:
        """Return the first prompt of that stable name, None if there is none; each call is a scan.

        Raises:
            Checksum: the file is damaged.
        """
        statement = f"SELECT {_LISTED} FROM {_PROMPTS} WHERE prompt_key = ? ORDER BY row_id LIMIT 1"  # noqa: S608 constants
        return next((Prompt(*row) for row in self._fetch(statement, prompt_key)), None)

    def rows_of(self, prompt_keys: Collection[str]) -> Ids:
        """Return the row ids of the prompts with these keys, rising; unknown keys are ignored.

        Raises:
            Checksum: the file is damaged.
        """
        statement = (
            f"SELECT row_id FROM {_PROMPTS} "  # noqa: S608 constants
            "WHERE prompt_key IN (SELECT unnest(?::VARCHAR[])) ORDER BY row_id"
        )
        row_ids = [row[0] for row in self._fetch(statement, list(prompt_keys))]
        return np.array(row_ids, dtype=np.int64)

    def embedded_texts(self, start: int, stop: int) -> list[str]:
        """Return the texts for the encoder of the rows from `start` up to `stop`, in row order."""
        statement = (
            f"SELECT embedded_text FROM {_PROMPTS} WHERE row_id >= ? AND row_id < ? ORDER BY row_id"  # noqa: S608 constants
        )
        return [row[0] for row in self._fetch(statement, start, stop)]

    def matching(self, predicate: Predicate) -> Ids:
        """Return the row ids of the prompts that a predicate is true of, rising.

        Raises:
            Checksum: the file is damaged.
        """
        sql, values = compile_sql(predicate)
        statement = f"SELECT row_id FROM {_PROMPTS} WHERE {sql} ORDER BY row_id"  # noqa: S608 holds no text of a user
        with _damage(self.path), self._connection.cursor() as cursor:
            columns = cursor.execute(statement, values).fetchnumpy()
        return np.asarray(columns["row_id"], dtype=np.int64)

    def group_sizes(self, group_ids: Sequence[int]) -> dict[int, int]:
        """Return for each group how many prompts it stands for, their duplicates included."""
        statement = (
            f"SELECT group_id, count(*) + sum(n_duplicates)::BIGINT FROM {_PROMPTS} "  # noqa: S608 constants
            "WHERE group_id IN (SELECT unnest(?::BIGINT[])) GROUP BY group_id"
        )
        return dict(self._fetch(statement, sorted(set(group_ids))))

    def frequent_phrases(self, limit: int) -> list[tuple[str, int]]:
        """Return at most `limit` phrases of the prompts, and how often each was submitted, falling.

        Prompts are split at commas, ends of sentences and weights; brackets and tags go. A phrase
        is lower case, of 2 to 60 characters and up to 7 words, with no more digits than letters,
        and stands in prompts of 3 different beginnings.

        Raises:
            Checksum: the file is damaged.
        """
        return [(str(phrase), int(n)) for phrase, n in self._fetch(_FREQUENT_PHRASES, limit)]

    def digest(self) -> str:
        """Return the sha256 (64 hex digits) of the rows in row order.

        DuckDB's bytes differ from run to run. Hashed is a JSON array of the columns of each row, in
        the order of `COLUMNS`, and a line feed; then the same of generation parameters, if there
        are any.
        """
        digest = RowsDigest()
        tables: dict[str, Mapping[str, str]] = {_PROMPTS: COLUMNS}
        if self._has_parameters:
            tables[_PARAMETERS] = PARAMETER_COLUMNS
        for table, columns in tables.items():
            for row in self._scan(table, columns):
                digest.add(row)
        return digest.hexdigest()

    def prompt_rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the columns of `COLUMNS` of each prompt, in row order.

        Raises:
            Checksum: the file is damaged.
        """
        return self._scan(_PROMPTS, COLUMNS)

    def parameter_rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield (row id, negative prompt, settings) of the rows that have any, in row order.

        Raises:
            Checksum: the file is damaged.
        """
        return self._scan(_PARAMETERS, PARAMETER_COLUMNS) if self._has_parameters else iter(())

    def close(self) -> None:
        """Let go of the file; calling it again does nothing."""
        self._connection.close()

    def __enter__(self) -> DuckPrompts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _scan(self, table: str, columns: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
        with _damage(self.path), self._connection.cursor() as cursor:
            # Range by range: 428 MB for 1 million rows in the time of one sort over all, which
            # takes 998 MB, or spills to disk.
            statement = (
                f"SELECT {', '.join(columns)} FROM {table} "  # noqa: S608 constants
                "WHERE row_id >= ? AND row_id < ? ORDER BY row_id"
            )
            for start in range(0, self._rows, _DIGEST_ROWS):
                yield from cursor.execute(statement, [start, start + _DIGEST_ROWS]).fetchall()

    def _fetch(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with _damage(self.path), self._connection.cursor() as cursor:
            return cursor.execute(statement, values).fetchall()
