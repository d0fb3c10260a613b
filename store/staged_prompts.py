"""The prompts of a running build: committed in batches with the place to resume, then numbered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import Checksum
from imprompt.core.values import Parameters
from imprompt.store.database_files import (
    duckdb_errors,
    new_database,
    remove_database,
    replace_database,
)
from imprompt.store.databases import (
    STORED,
    Setting,
    UnexpectedContent,
    check_no_macros,
    check_tables,
    quoted,
    read_database,
    write_database,
)
from imprompt.store.generation_parameters import PARAMETER_COLUMNS, has_parameters, settings_text
from imprompt.store.layout import PROMPTS, SPILLED, STAGED
from imprompt.store.prompts import COLUMNS, check_prompts

if TYPE_CHECKING:
    import pyarrow

_FORMS = {
    "staged": {
        "seq": "BIGINT",
        "prompt_key": "VARCHAR",
        "text": "VARCHAR",
        "embedded_text": "VARCHAR",
        "source": "VARCHAR",
        "source_key": "VARCHAR",
        "n_submitted": "BIGINT",
    },
    "parameters": {"seq": "BIGINT", "negative": "VARCHAR", "settings": "VARCHAR"},
    "corpora": {
        "corpus": "INTEGER PRIMARY KEY",
        "next_start": "BIGINT",
        "finished": "BOOLEAN",
        "notes": "VARCHAR",
    },
    "settled": {"place": "BIGINT", "group_id": "BIGINT", "n_duplicates": "BIGINT"},
    "different": {"place": "BIGINT", "seq": "BIGINT", "n_submitted": "BIGINT"},
}
_TABLES = "".join(
    f"CREATE TABLE {name}({', '.join(f'{column} {kind}' for column, kind in columns.items())});"
    for name, columns in _FORMS.items()
    if name != "different"  # which `drop_equal` makes
)
_SETTLE = """
CREATE TEMP TABLE base AS SELECT * FROM given;
INSERT INTO staged
SELECT row_id, prompt_key, text, embedded_text, source, source_key, n_submitted
FROM base ORDER BY row_id;
INSERT INTO settled SELECT row_id, group_id, n_duplicates FROM base ORDER BY row_id;
DROP TABLE base
"""
_SETTLE_PARAMETERS = """
INSERT INTO parameters SELECT row_id, negative, settings FROM given ORDER BY row_id
"""
# The first of equal prompts stands for all of them, in the order in which they came.
_DROP_EQUAL = """
CREATE OR REPLACE TABLE different AS
SELECT row_number() OVER (ORDER BY seq) - 1 AS place, seq, n_submitted
FROM (
    SELECT min(seq) AS seq, sum(n_submitted)::BIGINT AS n_submitted FROM staged GROUP BY prompt_key
) ORDER BY seq
"""
_NUMBER = """
CREATE OR REPLACE TEMP TABLE kept AS
SELECT row_number() OVER (ORDER BY k.place) - 1 AS row_id, k.place, d.seq, k.n_submitted,
       k.n_duplicates
FROM (SELECT coalesce(f.kept, d.place) AS place, sum(n_submitted)::BIGINT AS n_submitted,
             count(*) - 1 AS n_duplicates
      FROM different AS d LEFT JOIN dropped AS f USING (place) GROUP BY 1) AS k
JOIN different AS d USING (place);
CREATE TABLE numbered.prompts AS
SELECT k.row_id, s.prompt_key, text, embedded_text, source, source_key, k.n_submitted,
       coalesce(before.group_id, group_before.group_id, leader.row_id, k.row_id) AS group_id,
       k.n_duplicates + coalesce(before.n_duplicates, 0) AS n_duplicates
FROM kept AS k JOIN staged AS s USING (seq)
LEFT JOIN marked AS m ON m.place = k.place LEFT JOIN kept AS leader ON leader.place = m.kept
LEFT JOIN settled AS before ON before.place = k.place
LEFT JOIN settled AS group_before ON group_before.place = m.kept
ORDER BY k.row_id
"""
# The parameters of a row are those of the prompt that was kept for it.
_NUMBER_PARAMETERS = """
CREATE TABLE numbered.parameters AS
SELECT row_id, negative, settings FROM kept JOIN parameters USING (seq) ORDER BY row_id
"""
_EQUAL_EXAMPLES = """
SELECT s.source, s.source_key, s.text, first.text FROM staged AS s
JOIN (
    SELECT prompt_key, min(seq) AS seq FROM staged GROUP BY prompt_key HAVING count(*) > 1
) AS f USING (prompt_key)
JOIN staged AS first ON first.seq = f.seq WHERE s.seq > f.seq ORDER BY s.seq LIMIT ?
"""
_MEMORY = "1GB"
"""What DuckDB may hold at once; beyond it, it writes into the staging folder."""


@dataclass(frozen=True, slots=True)
class CleanPrompt:
    """A prompt after cleaning.

    Equal `prompt_key` means the same prompt. No text may hold a lone surrogate. Of equal prompts
    and of near duplicates, the one that is kept keeps its own `parameters`.
    """

    prompt_key: str
    text: str
    embedded_text: str
    source: str
    source_key: str
    n_submitted: int = 1
    parameters: Parameters | None = None


@dataclass(frozen=True, slots=True)
class CorpusState:
    """How far a corpus has been read: go on from row `next_start`.

    `notes` is what the last `add` left there.
    """

    next_start: int = 0
    finished: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NumberedRows:
    """The outcome of numbering: `rows` kept prompts, equal ones, and different ones dropped.

    `duplicates` equal an earlier prompt; `near_duplicates` differ from the one kept for them.
    """

    rows: int
    duplicates: int
    near_duplicates: int = 0


@dataclass(frozen=True, slots=True)
class DroppedPrompt:
    """A staged prompt that another one stands for, and the text of that."""

    source: str
    source_key: str
    text: str
    kept_text: str


class StagedPrompts:
    """Prompts on their way into `prompts.duckdb`. A context manager; needs the write lock.

    A process that dies loses at most the batch it was adding: open the same folder again and go on
    from `state`.

    Args:
        staging: the staging folder of the plan; created where it is missing.

    Raises:
        StorageFull: the disk is full or may not be written (every method).
        Checksum: the file of an earlier attempt is damaged (every method).
    """

    def __init__(self, staging: Path) -> None:
        self._folder = staging
        self._path = staging / STAGED
        with duckdb_errors(self._path):
            staging.mkdir(parents=True, exist_ok=True)
            self._settings: dict[str, Setting] = {
                "memory_limit": _MEMORY,
                "temp_directory": str(staging / SPILLED),
            }
            if not self._path.exists():
                with new_database(self._path, self._settings) as connection:
                    connection.execute(_TABLES)
            self._connection = write_database(self._path, self._settings, files=[staging / PROMPTS])
            self._check_tables()
            self._next_seq = self._one("SELECT coalesce(max(seq) + 1, 0) FROM staged")

    @property
    def n_settled(self) -> int:
        """How many rows stood before the corpora; see `settle`."""
        with duckdb_errors(self._path):
            return self._one("SELECT count(*) FROM settled")

    def settle(self, base: Path) -> None:
        """Put the rows of a version before all others, with row ids, groups, counts, parameters.

        Called again on the same folder, it does nothing.

        Args:
            base: a finished `prompts.duckdb`.
        """
        if self.n_settled:
            return
        import pyarrow

        with duckdb_errors(self._path), read_database(base, self._settings) as other:
            check_prompts(other, base)
            given = [("prompts", COLUMNS, _SETTLE)]
            if has_parameters(other, base):
                given.append(("parameters", PARAMETER_COLUMNS, _SETTLE_PARAMETERS))
            self._connection.begin()
            try:
                for table, columns, statement in given:
                    rows = other.sql(f"SELECT {', '.join(columns)} FROM {STORED}.main.{table}")  # noqa: S608 constants
                    reader = pyarrow.RecordBatchReader.from_stream(rows)
                    self._connection.register("given", reader)
                    self._connection.execute(statement)
                self._connection.commit()
            finally:
                self._connection.unregister("given")
            self._next_seq = self._one("SELECT coalesce(max(seq) + 1, 0) FROM staged")

    def state(self, corpus: int) -> CorpusState:
        """Return how far the corpus at this place of the plan (from 0) has been read."""
        with duckdb_errors(self._path):
            statement = "SELECT next_start, finished, notes FROM corpora WHERE corpus = ?"
            rows = self._connection.execute(statement, [corpus]).fetchall()
        return next(
            (
                CorpusState(start, finished, msgspec.json.decode(notes))
                for start, finished, notes in rows
            ),
            CorpusState(),
        )

    def add(self, prompts: Sequence[CleanPrompt], *, corpus: int, state: CorpusState) -> None:
        """Append a batch and remember `state` as the place after it: both or neither.

        Args:
            prompts: in the order of the corpus; duplicates may be among them, numbering drops them.
                May be empty.
            corpus: the corpus's place in the plan, from 0; corpora are added one after the other.
            state: where to go on from; its notes (counts, examples) must be plain JSON values.
        """
        batch = _arrow(prompts, first_seq=self._next_seq)
        parameters = _arrow_parameters(prompts, first_seq=self._next_seq)
        values = [
            corpus,
            state.next_start,
            state.finished,
            msgspec.json.encode(state.notes).decode(),
        ]
        with duckdb_errors(self._path):
            self._connection.register("batch", batch)
            self._connection.register("parameter_batch", parameters)
            self._connection.begin()
            try:
                self._connection.execute("INSERT INTO staged SELECT * FROM batch")
                if len(parameters):
                    self._connection.execute("INSERT INTO parameters SELECT * FROM parameter_batch")
                self._connection.execute(
                    "INSERT OR REPLACE INTO corpora VALUES (?, ?, ?, ?)", values
                )
                self._connection.commit()
            finally:
                self._connection.unregister("batch")
                self._connection.unregister("parameter_batch")
        self._next_seq += len(prompts)

    def drop_equal(self) -> NDArray[np.int64]:
        """Drop duplicates; return how often each prompt was submitted, in first-seen order.

        A prompt's position in that array is its *place*, which the other methods speak of.
        """
        with duckdb_errors(self._path):
            self._connection.execute(_DROP_EQUAL)
            counts = self._connection.execute(
                "SELECT n_submitted FROM different ORDER BY place"
            ).fetchnumpy()
        return np.asarray(counts["n_submitted"], dtype=np.int64)

    def embedded_texts(self, size: int) -> Iterator[list[str]]:
        """Yield the texts to embed of all different prompts, by place; after `drop_equal`."""
        # A range at a time, since both tables lie in this order: sorting all texts at once would
        # take many times the memory.
        statement = (
            "SELECT embedded_text FROM different JOIN staged USING (seq) "
            "WHERE seq >= ? AND seq < ? ORDER BY seq"
        )
        for start in range(0, self._next_seq, size):
            with duckdb_errors(self._path):
                rows = self._connection.execute(statement, [start, start + size]).fetchall()
            yield [row[0] for row in rows]

    def number(
        self, stands_for: NDArray[np.int64] | None = None, *, mark: bool = False
    ) -> NumberedRows:
        """Give each kept prompt a row id, in first-seen order, and write `prompts.duckdb`.

        The file appears whole or not at all; where it is already there, it is kept. `n_submitted`
        of dropped prompts is added up. After an error this object is closed.

        Args:
            stands_for: for each place the place of the prompt that is kept for it, its own where
                that is itself; None keeps all.
            mark: leave none out, but give those that one stands for its group.
        """
        target = self._folder / PROMPTS
        places = self.drop_equal()
        stands_for = np.arange(len(places)) if stands_for is None else stands_for
        dropped = np.flatnonzero(stands_for != np.arange(len(places)))
        with duckdb_errors(target):
            if not target.exists():
                self._write_numbered(target, dropped, stands_for[dropped], mark=mark)
            staged = self._one("SELECT count(*) FROM staged")
        n_duplicates = 0 if mark else len(dropped)
        return NumberedRows(len(places) - n_duplicates, staged - len(places), n_duplicates)

    def equal_examples(self, limit: int) -> list[DroppedPrompt]:
        """Return the first prompts that were equal to an earlier one."""
        with duckdb_errors(self._path):
            return [
                DroppedPrompt(*row)
                for row in self._connection.execute(_EQUAL_EXAMPLES, [limit]).fetchall()
            ]

    def dropped_examples(self, places: Sequence[int], kept: Sequence[int]) -> list[DroppedPrompt]:
        """Return the prompts at `places` with the texts of those at `kept`; after `drop_equal`."""
        statement = """
            SELECT s.source, s.source_key, s.text, k.text
            FROM (SELECT unnest(?::BIGINT[]) AS place, unnest(?::BIGINT[]) AS kept) AS f
            JOIN different AS d USING (place) JOIN staged AS s USING (seq)
            JOIN different AS e ON e.place = f.kept JOIN staged AS k ON k.seq = e.seq
            ORDER BY f.place"""
        with duckdb_errors(self._path):
            return [
                DroppedPrompt(*row)
                for row in self._connection.execute(
                    statement, [list(places), list(kept)]
                ).fetchall()
            ]

    def close(self) -> None:
        """Let go of the file; calling it again does nothing."""
        self._connection.close()

    def __enter__(self) -> StagedPrompts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write_numbered(
        self, target: Path, dropped: NDArray[np.int64], kept: NDArray[np.int64], *, mark: bool
    ) -> None:
        import pyarrow

        pairs = pyarrow.table({"place": dropped.astype(np.int64), "kept": kept.astype(np.int64)})
        nothing = pairs.slice(0, 0)
        self._connection.register("dropped", nothing if mark else pairs)
        self._connection.register("marked", pairs if mark else nothing)
        partial = target.with_name(f"{target.name}.tmp")
        remove_database(partial)
        self._connection.execute(f"ATTACH {quoted(partial)} AS numbered")
        try:
            self._connection.execute(_NUMBER)
            if self._one("SELECT count(*) FROM kept JOIN parameters USING (seq)"):
                self._connection.execute(_NUMBER_PARAMETERS)
            # So that nothing is left in a write-ahead log.
            self._connection.execute("CHECKPOINT numbered")
            self._connection.execute("DETACH numbered")
        except BaseException:
            self._connection.close()
            remove_database(partial)
            raise
        replace_database(partial, target)

    def _check_tables(self) -> None:
        """Raise `Checksum` if an earlier attempt's file holds what this class does not write."""
        try:
            database = self._path.stem
            check_no_macros(self._connection, database)
            check_tables(self._connection, database, _FORMS)
        except UnexpectedContent as error:
            self._connection.close()
            hint = f"Remove {self._folder} and build again."
            raise Checksum(
                f"{self._path} is not what a build leaves: {error}.", path=self._path, hint=hint
            ) from error

    def _one(self, statement: str) -> int:
        return int(self._connection.execute(statement).fetchall()[0][0])


def _arrow(prompts: Sequence[CleanPrompt], *, first_seq: int) -> pyarrow.Table:
    import pyarrow

    text = pyarrow.string()
    columns = {
        "seq": pyarrow.array(range(first_seq, first_seq + len(prompts)), pyarrow.int64()),
        "prompt_key": pyarrow.array([prompt.prompt_key for prompt in prompts], text),
        "text": pyarrow.array([prompt.text for prompt in prompts], text),
        "embedded_text": pyarrow.array([prompt.embedded_text for prompt in prompts], text),
        "source": pyarrow.array([prompt.source for prompt in prompts], text),
        "source_key": pyarrow.array([prompt.source_key for prompt in prompts], text),
        "n_submitted": pyarrow.array([prompt.n_submitted for prompt in prompts], pyarrow.int64()),
    }
    return pyarrow.table(columns)


def _arrow_parameters(prompts: Sequence[CleanPrompt], *, first_seq: int) -> pyarrow.Table:
    import pyarrow

    found = [
        (seq, prompt.parameters)
        for seq, prompt in enumerate(prompts, first_seq)
        if prompt.parameters
    ]
    text = pyarrow.string()
    columns = {
        "seq": pyarrow.array([seq for seq, _ in found], pyarrow.int64()),
        "negative": pyarrow.array([parameters.negative for _, parameters in found], text),
        "settings": pyarrow.array([settings_text(parameters) for _, parameters in found], text),
    }
    return pyarrow.table(columns)
