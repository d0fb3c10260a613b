"""The exact nearest neighbours, by looking at every stored vector: slow, short, and what every other index is measured against."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imprompt.core.protocols import VectorStore
from imprompt.core.values import Hits, Ids, IndexCaps, Vectors
from imprompt.store.ranking import MAX_K, check_allowed, check_queries, cosines, no_hits, ranked

_BLOCK_ROWS = 16_384


class ExactIndex:
    """A `imprompt.core.protocols.VectorIndex` that scans the vectors of a space with numpy."""

    def __init__(self, vectors: VectorStore) -> None:
        self._vectors = vectors

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

        `effort` changes nothing.
        """
        queries = check_queries(queries, k, effort=effort, dim=self.dim)
        hits = no_hits(len(queries), k)
        for ids, rows in self._blocks(check_allowed(allowed, rows=len(self))):
            for i, scores in enumerate(cosines(queries, rows)):
                known = hits.ids[i] >= 0
                best_ids, best_scores = ranked(
                    np.concatenate([hits.ids[i][known], ids]),
                    np.concatenate([hits.scores[i][known], scores]),
                    k,
                )
                hits.ids[i, : len(best_ids)] = best_ids
                hits.scores[i, : len(best_ids)] = best_scores
        return hits

    def _blocks(self, allowed: Ids | None) -> Iterator[tuple[Ids, Vectors]]:
        """(row ids, their vectors) of all rows that may be answered."""
        if allowed is None:
            for start, block in self._vectors.blocks(_BLOCK_ROWS):
                yield np.arange(start, start + len(block), dtype=np.int64), block
        else:
            for start in range(0, len(allowed), _BLOCK_ROWS):
                ids = allowed[start : start + _BLOCK_ROWS]
                yield ids, self._vectors.rows(ids)
