"""Nearest neighbours with Milvus: it proposes rows, the vectors that were pushed score them again.

What it proposes depends on the effort and never on k up to 128, so that the first 5 of 50 are the 5
of 5. Questions are asked one by one where the kind of index is not exact: a server finds candidates
for a batch by another route than for a single question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Hits, Ids, IndexCaps, Vectors
from imprompt.store.exact_index import ExactIndex
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.index_types import KINDS, METRIC, POOL, IndexChoice
from imprompt.store.milvus.milvus_prompts import Matched
from imprompt.store.milvus.vectors import MilvusVectors
from imprompt.store.ranking import (
    MAX_K,
    Scanned,
    check_allowed,
    check_queries,
    cosines,
    no_hits,
    score_again,
)

Found: TypeAlias = "tuple[Ids, NDArray[np.float32]]"

MOST_HITS = 16_384
"""The most rows that Milvus answers to one question."""

_IDS_AT_ONCE = 16_384
_ANSWERS_AT_ONCE = 1 << 17
_QUESTIONS_AT_ONCE = 32
_SPARE = 64
_WIDER = 8
_ROUNDING = 1e-6


class MilvusIndex:
    """A `imprompt.core.protocols.VectorIndex` over a vector field of a collection. Safe to search from several threads.

    The answer is the exact one among what Milvus proposes. `effort` 1 is exact: a scan of the
    server's where its kind of index compares every row and the proposal is proven to hold the
    answer; else all vectors come over the network.

    Args:
        vectors: of the same field.
        choice: the kind of index and its parameters.
        effort: the default one.
        matched: ids that an expression names exactly.
    """

    def __init__(
        self,
        connection: Connection,
        collection: str,
        field: str,
        vectors: MilvusVectors,
        *,
        choice: IndexChoice,
        effort: float,
        matched: Matched,
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._field = field
        self._vectors = vectors
        self._exact = ExactIndex(vectors)
        self._choice = choice
        self._effort = effort
        self._matched = matched
        self._exhaustive = KINDS[choice.kind].exhaustive
        # How far its scores can be off: sums of `dim` products in float32, in whatever order, on
        # either side.
        self._scan_error = 2 * vectors.dim * 2.0**-24 + _ROUNDING

    @property
    def dim(self) -> int:
        return self._vectors.dim

    @property
    def caps(self) -> IndexCaps:
        return IndexCaps(max_k=MAX_K, filters=True, concurrent=True)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: Vectors, k: int, *, effort: float | None = None, allowed: Ids | None = None
    ) -> Hits:
        """The k nearest rows of each query; see `imprompt.core.protocols.VectorIndex.search`.

        Where few rows are allowed they are all fetched and looked at, which is exact.

        Raises:
            StoreError: the server does not answer, or refuses.
        """
        queries = check_queries(queries, k, effort=effort, dim=self.dim)
        known = self._matched.expression(allowed)
        allowed = check_allowed(allowed, rows=len(self))
        effort = self._effort if effort is None else effort
        n_allowed = len(self) if allowed is None else len(allowed)
        if allowed is not None and n_allowed <= 2 * max(POOL, k):
            return self._exact.search(queries, k, allowed=allowed)
        selections = self._selections(allowed, known)
        hits, done = no_hits(len(queries), k), np.zeros(len(queries), dtype=np.bool_)
        if effort >= 1 or not KINDS[self._choice.kind].dial:
            found = (
                self._scanned(queries, min(k, n_allowed), selections, n_allowed)
                if self._exhaustive
                else {}
            )
        else:
            found = self._proposed(queries, max(POOL, k), selections, n_allowed, effort)
        answered = [*found]
        for start in range(0, len(answered), _QUESTIONS_AT_ONCE):
            some = answered[start : start + _QUESTIONS_AT_ONCE]
            fetched = _Fetched(self._vectors, [found[i][0] for i in some])
            for i in some:
                done[i] = True
                scanned = (
                    Scanned(found[i][1], self._scan_error, Path(self._collection))
                    if self._exhaustive
                    else None
                )
                score_again(hits, i, queries[i : i + 1], found[i][0], fetched, scanned=scanned)
        if len(left := np.flatnonzero(~done)):
            exact = self._exact.search(queries[left], k, allowed=allowed)
            hits.ids[left], hits.scores[left] = exact.ids, exact.scores
        return hits

    def _selections(self, allowed: Ids | None, known: str | None) -> list[str]:
        """Expressions that together name the allowed rows, each once."""
        if allowed is None or len(allowed) == len(self):
            return [""]
        if known:
            return [known]
        if len(self) - len(allowed) <= _IDS_AT_ONCE:
            others = np.setdiff1d(np.arange(len(self)), allowed, assume_unique=True)
            return [f"row_id not in {others.tolist()}"]
        return [
            f"row_id in {allowed[start : start + _IDS_AT_ONCE].tolist()}"
            for start in range(0, len(allowed), _IDS_AT_ONCE)
        ]

    def _proposed(
        self, queries: Vectors, pool: int, selections: list[str], n_allowed: int, effort: float
    ) -> dict[int, Found]:
        """For each query the rows that Milvus proposes, with its scores; a query is left out where it cannot find enough."""
        found: dict[int, Found] = {}
        wanted = min(pool, n_allowed)
        for i, query in enumerate(queries):
            tried = effort
            while i not in found:
                ids, scores = _joined(self._asked(query[None], pool, selections, effort=tried)[0])
                if len(ids) >= wanted:
                    best = np.lexsort((ids, -scores))[:pool]
                    found[i] = ids[best], scores[best]
                elif tried >= 1:
                    break
                tried = self._choice.wider(tried)
        return found

    def _scanned(
        self, queries: Vectors, k: int, selections: list[str], n_allowed: int
    ) -> dict[int, Found]:
        """For each query rows among which its k nearest are certain to be, with Milvus's scores.

        A query is left out where too many are as near as the k-th."""
        found: dict[int, Found] = {}
        pending, pool, widest = (
            np.arange(len(queries)),
            min(k + _SPARE, n_allowed, MOST_HITS),
            min(n_allowed, MOST_HITS),
        )
        while pending.size:
            unsure = []
            for i, parts in zip(
                pending.tolist(), self._batches(queries[pending], pool, selections), strict=True
            ):
                ids, scores = _joined(parts)
                whole = all(len(some) < pool for some, _ in parts) or len(ids) >= n_allowed
                if len(ids) < k or (whole and len(ids) < n_allowed):
                    continue  # for whatever reason, it does not look at every row
                floor = (
                    np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * self._scan_error
                )
                # Of each selection, what was not shown is no nearer than the last that was.
                if whole or all(len(some) < pool or near.min() < floor for some, near in parts):
                    found[i] = ids[scores >= floor], scores[scores >= floor]
                else:
                    unsure.append(i)
            if pool >= widest:
                break
            pending, pool = np.array(unsure, dtype=np.int64), min(pool * _WIDER, widest)
        return found

    def _batches(self, queries: Vectors, pool: int, selections: list[str]) -> Iterator[list[Found]]:
        size = max(_ANSWERS_AT_ONCE // pool, 1)
        for start in range(0, len(queries), size):
            yield from self._asked(queries[start : start + size], pool, selections, effort=1.0)

    def _asked(
        self, queries: Vectors, pool: int, selections: list[str], *, effort: float
    ) -> list[list[Found]]:
        """For each query what Milvus finds in each selection, at most `pool` rows."""
        found: list[list[Found]] = [[] for _ in queries]
        for where in selections:
            answer = self._connection.call(
                "search",
                self._collection,
                data=[*queries],
                anns_field=self._field,
                limit=pool,
                filter=where,
                search_params={
                    "metric_type": METRIC,
                    "params": self._choice.search_params(effort, limit=pool),
                },
                output_fields=["row_id"],
            )
            for parts, hits in zip(found, answer, strict=True):
                ids = np.array([hit["row_id"] for hit in hits], dtype=np.int64)
                parts.append((ids, np.array([hit["distance"] for hit in hits], dtype=np.float32)))
        return found


class _Fetched:
    """Satisfies `imprompt.store.ranking.StoredVectors` with the rows of several questions, fetched at once."""

    def __init__(self, vectors: MilvusVectors, candidates: list[Ids]) -> None:
        self._ids = np.unique(np.concatenate(candidates))
        self._rows = vectors.rows(self._ids)

    def cosines(self, query: Vectors, row_ids: Ids) -> NDArray[np.float32]:
        found: NDArray[np.float32] = cosines(
            query, self._rows[np.searchsorted(self._ids, row_ids)]
        )[0]
        return found


def _joined(parts: list[Found]) -> Found:
    return np.concatenate([ids for ids, _ in parts]), np.concatenate(
        [scores for _, scores in parts]
    )
