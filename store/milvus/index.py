"""Nearest neighbours with Milvus: it proposes rows, the vectors that were pushed score them again.

Its proposals depend on the effort alone up to k = `caps.steady_k`, so that the first 5 of 50 are
the 5 of 5. Queries are sent one by one where the index type is not exact: a server finds candidates
for a batch by another route than for a single query.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Hits, Ids, Selection, Vectors
from imprompt.store.exact_index import ExactIndex
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.expressions import compile_filter
from imprompt.store.milvus.index_types import INDEX_TYPES, METRIC, POOL, IndexChoice
from imprompt.store.milvus.vectors import MilvusVectors
from imprompt.store.ranking import BaseIndex, Scanned, cosines, no_hits, ranked, score_again

MOST_HITS = 16_384
"""The most rows that Milvus answers to one query."""

_IDS_AT_ONCE = 16_384
_ANSWERS_AT_ONCE = 1 << 17
_QUERIES_AT_ONCE = 32
_SPARE = 64
_WIDER = 8
_ROUNDING = 1e-6


class _Candidates(NamedTuple):
    """Row ids that the server proposes for a query, and its scores of them."""

    ids: Ids
    scores: NDArray[np.float32]


class MilvusIndex(BaseIndex):
    """An index over a vector field of a collection. Safe to search from threads.

    The answer is the exact one among what Milvus proposes. Effort 1 is exact: a scan by the server
    where its index type compares every row and the proposals are proven to hold the answer; else
    all vectors come over the network. Where few rows are selected, they are all fetched and
    compared.

    Args:
        vectors: of the same field.
        choice: the index type and its parameters.
        effort: the default one.
        n_long: how many rows have texts that are longer than a field takes, so that the server
            cannot tell whether a predicate is true of them.

    Raises:
        StoreError: the server does not answer, or refuses (from a search).
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
        n_long: int = 0,
    ) -> None:
        super().__init__(vectors)
        self._connection = connection
        self._collection = collection
        self._field = field
        self._vectors = vectors
        self._exact = ExactIndex(vectors)
        self._choice = choice
        self._effort = effort
        self._n_long = n_long
        self._exhaustive = INDEX_TYPES[choice.kind].exhaustive
        # How far its scores can be off: both sides sum `dim` products in float32, in any order.
        self._scan_error = 2 * vectors.dim * 2.0**-24 + _ROUNDING

    def search_checked(
        self, queries: Vectors, k: int, effort: float | None, selection: Selection | None
    ) -> Hits:
        effort = self._effort if effort is None else effort
        n_selected = self._n_selected(selection)
        if selection is not None and n_selected <= 2 * max(POOL, k):
            return self._exact.search_checked(queries, k, effort, selection)
        filters = self._filters(selection)
        if effort < 1 and self._choice.has_dial:
            proposed = self._proposed(queries, max(POOL, k), filters, n_selected, effort)
        elif self._exhaustive:
            proposed = self._scanned(queries, min(k, n_selected), filters, n_selected)
        else:
            proposed = {}
        hits = no_hits(len(queries), k)
        answered = list(proposed)
        for start in range(0, len(answered), _QUERIES_AT_ONCE):
            batch = answered[start : start + _QUERIES_AT_ONCE]
            fetched = _FetchedVectors(self._vectors, [proposed[i].ids for i in batch])
            for i in batch:
                ids, scores = proposed[i]
                scanned = Scanned(scores, self._scan_error, Path(self._collection))
                score_again(
                    hits,
                    i,
                    queries[i : i + 1],
                    ids,
                    fetched,
                    scanned=scanned if self._exhaustive else None,
                )
        if left := [i for i in range(len(queries)) if i not in proposed]:
            exact = self._exact.search_checked(queries[left], k, effort, selection)
            hits.ids[left], hits.scores[left] = exact.ids, exact.scores
        return hits

    def _filters(self, selection: Selection | None) -> list[str]:
        """Return expressions that together name the selected rows, each once."""
        if selection is None or len(selection.row_ids) == len(self):
            return [""]
        if selection.predicate is not None and not self._n_long:
            compiled = compile_filter(selection.predicate)
            if compiled.exact and compiled.expression:
                return [compiled.expression]
        row_ids = selection.row_ids
        if len(self) - len(row_ids) <= _IDS_AT_ONCE:
            others = np.setdiff1d(np.arange(len(self)), row_ids, assume_unique=True)
            return [f"row_id not in {others.tolist()}"]
        return [
            f"row_id in {row_ids[start : start + _IDS_AT_ONCE].tolist()}"
            for start in range(0, len(row_ids), _IDS_AT_ONCE)
        ]

    def _proposed(
        self, queries: Vectors, pool: int, filters: list[str], n_selected: int, effort: float
    ) -> dict[int, _Candidates]:
        """Return the rows that Milvus proposes for each query that it finds enough for."""
        proposed: dict[int, _Candidates] = {}
        wanted = min(pool, n_selected)
        for i, query in enumerate(queries):
            tried = effort
            while i not in proposed:
                ids, scores = _joined(self._asked(query[None], pool, filters, effort=tried)[0])
                if len(ids) >= wanted:
                    proposed[i] = _Candidates(*ranked(ids, scores, pool))
                elif tried >= 1:
                    break
                tried = self._choice.wider(tried)
        return proposed

    def _scanned(
        self, queries: Vectors, k: int, filters: list[str], n_selected: int
    ) -> dict[int, _Candidates]:
        """Return rows that certainly hold each query's k nearest, with Milvus's scores.

        A query is left out where too many rows are as near as the k-th.
        """
        proposed: dict[int, _Candidates] = {}
        pending, widest = np.arange(len(queries)), min(n_selected, MOST_HITS)
        pool = min(k + _SPARE, widest)
        while pending.size:
            unsure = []
            for i, parts in zip(
                pending.tolist(), self._batches(queries[pending], pool, filters), strict=True
            ):
                ids, scores = _joined(parts)
                whole = all(len(part.ids) < pool for part in parts) or len(ids) >= n_selected
                if len(ids) < k or (whole and len(ids) < n_selected):
                    continue  # the server, for some reason, does not compare every row
                kth_score = np.partition(scores, len(scores) - k)[len(scores) - k]
                floor = kth_score - 2 * self._scan_error
                # The rows of a filter that were not shown are no nearer than its last that was.
                if whole or all(
                    len(part.ids) < pool or part.scores.min() < floor for part in parts
                ):
                    proposed[i] = _Candidates(ids[scores >= floor], scores[scores >= floor])
                else:
                    unsure.append(i)
            if pool >= widest:
                break
            pending, pool = np.array(unsure, dtype=np.int64), min(pool * _WIDER, widest)
        return proposed

    def _batches(
        self, queries: Vectors, pool: int, filters: list[str]
    ) -> Iterator[list[_Candidates]]:
        size = max(_ANSWERS_AT_ONCE // pool, 1)
        for start in range(0, len(queries), size):
            yield from self._asked(queries[start : start + size], pool, filters, effort=1.0)

    def _asked(
        self, queries: Vectors, pool: int, filters: list[str], *, effort: float
    ) -> list[list[_Candidates]]:
        """Return for each query what Milvus finds by each filter, at most `pool` rows."""
        parts: list[list[_Candidates]] = [[] for _ in queries]
        for expression in filters:
            answer = self._connection.call(
                "search",
                self._collection,
                data=[*queries],
                anns_field=self._field,
                limit=pool,
                filter=expression,
                search_params={
                    "metric_type": METRIC,
                    "params": self._choice.search_params(effort, limit=pool),
                },
                output_fields=["row_id"],
            )
            for of_query, hits in zip(parts, answer, strict=True):
                ids = np.array([hit["row_id"] for hit in hits], dtype=np.int64)
                scores = np.array([hit["distance"] for hit in hits], dtype=np.float32)
                of_query.append(_Candidates(ids, scores))
        return parts


class _FetchedVectors:
    """The rows of several queries, fetched at once, as `imprompt.store.ranking.StoredVectors`."""

    def __init__(self, vectors: MilvusVectors, candidates: list[Ids]) -> None:
        self._ids = np.unique(np.concatenate(candidates))
        self._rows = vectors.rows(self._ids)

    def cosines(self, query: Vectors, row_ids: Ids) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = cosines(
            query, self._rows[np.searchsorted(self._ids, row_ids)]
        )[0]
        return scores


def _joined(parts: list[_Candidates]) -> _Candidates:
    return _Candidates(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
