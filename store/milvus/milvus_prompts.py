"""The texts of one version, read from Milvus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imprompt.core.errors import StoreError, UnknownRow
from imprompt.core.predicates import Predicate
from imprompt.core.values import Ids, Parameters, Prompt
from imprompt.store.databases import scratch
from imprompt.store.generation_parameters import read_parameters
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.expressions import columns_of, compile_filter
from imprompt.store.milvus.schema import PARAMETER_FIELDS, PROMPT_FIELDS, TEXTS, prompt_of
from imprompt.store.predicate_sql import compile_sql

_ROWS_AT_ONCE = 512
_KEYS_AT_ONCE = 512


class MilvusPrompts:
    """A `imprompt.core.protocols.PromptStore` over a collection. Safe to use from threads.

    Args:
        rows: how many the collection has.
        n_long: how many of them have texts that are longer than a field takes, so that the server
            cannot tell whether a predicate is true of them.
        has_parameters: the collection has fields for generation parameters.
    """

    def __init__(
        self,
        connection: Connection,
        collection: str,
        *,
        rows: int,
        n_long: int,
        has_parameters: bool = False,
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._rows = rows
        self._n_long = n_long
        self._has_parameters = has_parameters

    def __len__(self) -> int:
        return self._rows

    def get_many(self, row_ids: Sequence[int] | Ids) -> list[Prompt]:
        """Return the prompts in the order asked for, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
            StoreError: the server does not answer, or lacks a row.
        """
        ids = [int(row_id) for row_id in row_ids]
        wrong = next((row_id for row_id in ids if not 0 <= row_id < self._rows), None)
        if wrong is not None:
            raise UnknownRow(f"Row {wrong} is outside of 0 to {self._rows - 1}.")
        prompts = {
            int(row["row_id"]): prompt_of(row) for row in self._fetch(ids, fields=PROMPT_FIELDS)
        }
        if len(prompts) != len(set(ids)):
            raise StoreError(
                f"{self._connection.place} lacks rows of {self._collection}.",
                hint="Push the index again.",
            )
        return [prompts[row_id] for row_id in ids]

    def parameters(self, row_ids: Sequence[int] | Ids) -> dict[int, Parameters]:
        """Return the generation parameters of those rows that have any, by row id.

        Raises:
            StoreError: the server does not answer.
            Checksum: it holds something else there.
        """
        if not self._has_parameters:
            return {}
        found: dict[int, Parameters] = {}
        fields = ("row_id", *PARAMETER_FIELDS)
        for row in self._fetch([int(row_id) for row_id in row_ids], fields=fields):
            negative, settings = (row[name] for name in PARAMETER_FIELDS)
            if negative or settings:
                found[int(row["row_id"])] = read_parameters(
                    negative, settings or "{}", path=Path(self._collection)
                )
        return found

    def by_key(self, prompt_key: str) -> Prompt | None:
        """Return the first prompt of that stable name; None where there is none."""
        rows = self.rows_of([prompt_key])
        return self.get_many(rows[:1])[0] if len(rows) else None

    def rows_of(self, prompt_keys: Collection[str]) -> Ids:
        """Return the row ids of the prompts with these keys, rising; unknown keys are ignored."""
        row_ids: list[int] = []
        # A key is a sha256; nothing else may get between the quotes of an expression.
        keys = sorted({key for key in prompt_keys if key.isalnum()})
        for some in _chunks(keys, _KEYS_AT_ONCE):
            listed = ", ".join(f'"{key}"' for key in some)
            rows = self._select(f"prompt_key in [{listed}]", ["row_id"])
            row_ids += [int(row["row_id"]) for row in rows]
        return np.array(sorted(row_ids), dtype=np.int64)

    def matching(self, predicate: Predicate) -> Ids:
        """Return the row ids of the prompts that a predicate is true of, rising.

        The server finds them where its language can say the predicate; else those that it cannot
        exclude come here and are checked by DuckDB, as on this machine.

        Raises:
            StoreError: the server does not answer.
        """
        compiled = compile_filter(predicate)
        if compiled.exact and not self._n_long:
            rows = self._select(compiled.expression, ["row_id"])
            return np.array(sorted(int(row["row_id"]) for row in rows), dtype=np.int64)
        columns = {"row_id", *columns_of(predicate)}
        where = compiled.expression
        if self._n_long:
            where = f"({where}) or n_pieces > 0" if where else ""
            columns |= {*TEXTS, "whole"} if columns & set(TEXTS) else set()
        pages = self._connection.pages(self._collection, where=where, fields=sorted(columns))
        row_ids = [_matching_rows(predicate, page) for page in pages]
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *row_ids]))

    def group_sizes(self, group_ids: Sequence[int]) -> dict[int, int]:
        """Return for each group how many prompts it stands for, their duplicates included."""
        sizes: Counter[int] = Counter()
        for some in _chunks(sorted({int(group) for group in group_ids}), _KEYS_AT_ONCE):
            for row in self._select(f"group_id in {some}", ["group_id", "n_duplicates"]):
                sizes[int(row["group_id"])] += 1 + int(row["n_duplicates"])
        return dict(sizes)

    def frequent_phrases(self, limit: int) -> list[tuple[str, int]]:  # noqa: ARG002 the protocol's argument
        """Milvus cannot count phrases.

        Raises:
            StoreError: always.
        """
        raise StoreError(
            "The phrases of prompts are counted by DuckDB in the folder of an index, not on "
            f"{self._connection.place}.",
            hint="Use --phrases package, or ask the folder that was pushed: its phrases are kept "
            "for this index, too.",
        )

    def _fetch(self, ids: Sequence[int], *, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        for some in _chunks(sorted(set(ids)), _ROWS_AT_ONCE):
            yield from self._connection.call(
                "query", self._collection, filter=f"row_id in {some}", output_fields=[*fields]
            )

    def _select(self, where: str, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        for page in self._connection.pages(self._collection, where=where, fields=fields):
            yield from page


def _matching_rows(predicate: Predicate, rows: Sequence[dict[str, Any]]) -> Ids:
    """Return the ids of the rows that a predicate is true of, by DuckDB."""
    import pyarrow as pa

    if rows and "whole" in rows[0]:
        full = [
            prompt_of({"prompt_key": "", "n_submitted": 0, "group_id": 0, "n_duplicates": 0} | row)
            for row in rows
        ]
        rows = [
            {**row, **{name: getattr(prompt, name) for name in TEXTS}}
            for row, prompt in zip(rows, full, strict=True)
        ]
    names = [name for name in rows[0] if name != "whole"] if rows else ["row_id"]
    table = pa.table({name: [row[name] for row in rows] for name in names})
    sql, values = compile_sql(predicate)
    with scratch() as connection:
        connection.register("page", table)
        statement = f"SELECT row_id FROM page WHERE {sql}"  # noqa: S608 holds no text of a user
        columns = connection.execute(statement, values).fetchnumpy()
    return np.asarray(columns["row_id"], dtype=np.int64)


def _chunks(items: Sequence[Any], size: int) -> Iterable[list[Any]]:
    return ([*items[start : start + size]] for start in range(0, len(items), size))
