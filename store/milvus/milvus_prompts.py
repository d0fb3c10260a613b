"""The texts of one version, read from Milvus."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from imprompt.core.errors import StoreError, UnknownRow
from imprompt.core.values import Condition, Ids, Prompt
from imprompt.store.databases import scratch
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.expressions import columns_of, translate
from imprompt.store.milvus.schema import PROMPT_FIELDS, TEXTS, prompt_of

_ROWS_AT_ONCE = 512
_KEYS_AT_ONCE = 512


class Matched:
    """Remembers which row ids are just those of an expression, so that a search among them need not send them all.

    They are known again by the array itself, as long as it lives; it may not be written into.
    """

    def __init__(self) -> None:
        self._expressions: dict[int, str] = {}

    def remember(self, ids: Ids, expression: str) -> None:
        ids.flags.writeable = False
        self._expressions[id(ids)] = expression
        weakref.finalize(ids, self._expressions.pop, id(ids), None)

    def expression(self, ids: Ids | None) -> str | None:
        """The expression of these ids; None where it is not known."""
        return None if ids is None else self._expressions.get(id(ids))


class MilvusPrompts:
    """A `imprompt.core.protocols.PromptStore` over a collection. Safe to use from several threads.

    Args:
        rows: how many the collection has.
        n_long: how many of them have texts that are longer than a field takes, so that no
            expression can tell of them.
        matched: where ids are remembered that an expression names exactly.
    """

    def __init__(
        self, connection: Connection, collection: str, *, rows: int, n_long: int, matched: Matched
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._rows = rows
        self._n_long = n_long
        self._matched = matched

    def __len__(self) -> int:
        return self._rows

    def get_many(self, row_ids: Sequence[int] | Ids) -> list[Prompt]:
        """The prompts in the order asked for, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
            StoreError: the server does not answer, or lacks a row.
        """
        ids = [int(row_id) for row_id in row_ids]
        wrong = next((row_id for row_id in ids if not 0 <= row_id < self._rows), None)
        if wrong is not None:
            raise UnknownRow(f"Row {wrong} is outside of 0 to {self._rows - 1}.")
        found: dict[int, Prompt] = {}
        for some in _chunks(sorted(set(ids)), _ROWS_AT_ONCE):
            rows = self._connection.call(
                "query",
                self._collection,
                filter=f"row_id in {some}",
                output_fields=[*PROMPT_FIELDS],
            )
            found |= {int(row["row_id"]): prompt_of(row) for row in rows}
        if len(found) != len(set(ids)):
            raise StoreError(
                f"{self._connection.place} lacks rows of {self._collection}.",
                hint="Push the index again.",
            )
        return [found[row_id] for row_id in ids]

    def by_key(self, prompt_key: str) -> Prompt | None:
        """The prompt of that stable name, the first where there are several;

        None where there is none.
        """
        rows = self.rows_of([prompt_key])
        return self.get_many(rows[:1])[0] if len(rows) else None

    def rows_of(self, prompt_keys: Collection[str]) -> Ids:
        """The row ids of the prompts with these keys, rising; keys that no prompt has are passed over."""
        found: list[int] = []
        keys = sorted(
            {key for key in prompt_keys if key.isalnum()}
        )  # a sha256; anything else is nobody's key
        for some in _chunks(keys, _KEYS_AT_ONCE):
            listed = ", ".join(f'"{key}"' for key in some)
            found += [
                int(row["row_id"]) for row in self._select(f"prompt_key in [{listed}]", ["row_id"])
            ]
        return np.array(sorted(found), dtype=np.int64)

    def matching(self, condition: Condition) -> Ids:
        """The row ids of the prompts that a condition is true of, rising.

        The server finds them where its language has the words; where it has not, those that it
        cannot exclude come here and are looked at by DuckDB, as on this machine.

        Raises:
            StoreError: the server does not answer.
        """
        found = translate(condition)
        if found.exact and not self._n_long:
            rows = self._select(found.expression, ["row_id"])
            ids = np.array(sorted(int(row["row_id"]) for row in rows), dtype=np.int64)
            self._matched.remember(ids, found.expression)
            return ids
        columns = sorted({"row_id", *columns_of(condition)})
        where = found.expression
        if self._n_long:
            where = f"({where}) or n_pieces > 0" if where else ""
            columns = sorted({*columns, *TEXTS, "whole"}) if set(columns) & set(TEXTS) else columns
        true = [
            _true_of(condition, page)
            for page in self._connection.pages(self._collection, where=where, fields=columns)
        ]
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *true]))

    def group_sizes(self, group_ids: Sequence[int]) -> dict[int, int]:
        """For each group, how many prompts of the corpora it stands for: its members here, and those folded into them."""
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
            f"The phrases of prompts are counted by DuckDB in the folder of an index, not on {self._connection.place}.",
            hint="Use --phrases package, or ask the folder that was pushed: its phrases are kept for this index, too.",
        )

    def _select(self, where: str, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        for page in self._connection.pages(self._collection, where=where, fields=fields):
            yield from page


def _true_of(condition: Condition, rows: Sequence[dict[str, Any]]) -> Ids:
    """The ids of the rows of which a condition is true, by DuckDB."""
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
    with scratch() as connection:
        connection.register("page", table)
        found = connection.execute(
            f"SELECT row_id FROM page WHERE {condition.sql}",  # noqa: S608
            condition.values,
        ).fetchnumpy()
    return np.asarray(found["row_id"], dtype=np.int64)


def _chunks(items: Sequence[Any], size: int) -> Iterable[list[Any]]:
    return ([*items[start : start + size]] for start in range(0, len(items), size))
