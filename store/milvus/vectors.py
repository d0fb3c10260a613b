"""The vectors of one space, read from Milvus."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imprompt.core.errors import StoreError, UnknownRow
from imprompt.core.values import Ids, Vectors
from imprompt.store.milvus.connection import Connection

_VALUES_AT_ONCE = 1 << 20
"""Numbers of one answer: 4 MiB, of the 100 that Milvus gives out at most."""


class MilvusVectors:
    """A `imprompt.core.protocols.VectorStore` over a field: the pushed unit rows, to the bit."""

    def __init__(
        self, connection: Connection, collection: str, field: str, *, rows: int, dim: int
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._field = field
        self._rows = rows
        self.dim = dim
        self._rows_at_once = max(_VALUES_AT_ONCE // dim, 1)

    def __len__(self) -> int:
        return self._rows

    def rows(self, row_ids: Ids) -> Vectors:
        """Return (n, dim) float32 unit rows in the order asked for, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
            StoreError: the server does not answer, or lacks a row.
        """
        ids = np.asarray(row_ids, dtype=np.int64).reshape(-1)
        if ids.size and (ids.min() < 0 or ids.max() >= self._rows):
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise UnknownRow(f"Row {wrong} is outside of 0 to {self._rows - 1}.")
        unique, places = np.unique(ids, return_inverse=True)
        found = np.empty((len(unique), self.dim), dtype=np.float32)
        for start in range(0, len(unique), self._rows_at_once):
            some = unique[start : start + self._rows_at_once]
            found[start : start + len(some)] = self._fetched(f"row_id in {some.tolist()}", some)
        return found[places]

    def blocks(self, size: int) -> Iterator[tuple[int, Vectors]]:
        """Yield (first row id, block of at most `size` rows) of all rows, over the network."""
        step = min(size, self._rows_at_once)
        for start in range(0, self._rows, step):
            stop = min(start + step, self._rows)
            yield (
                start,
                self._fetched(f"row_id >= {start} and row_id < {stop}", np.arange(start, stop)),
            )

    def _fetched(self, where: str, ids: Ids) -> Vectors:
        """Return the rows of rising ids that an expression names."""
        answer = self._connection.call(
            "query", self._collection, filter=where, output_fields=["row_id", self._field]
        )
        found = np.array([row["row_id"] for row in answer], dtype=np.int64)
        order = np.argsort(found, kind="stable")
        if not np.array_equal(found[order], ids):
            raise StoreError(
                f"{self._connection.place} lacks rows of {self._collection}.",
                hint="Push the index again.",
            )
        rows = np.array([row[self._field] for row in answer], dtype=np.float32).reshape(
            len(ids), self.dim
        )
        return np.ascontiguousarray(rows[order])
