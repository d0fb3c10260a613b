"""The exact nearest neighbours, by comparing every stored vector.

Slow and short: every other index is measured against it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imprompt.core.protocols import VectorStore
from imprompt.core.values import Hits, Ids, Selection, Vectors
from imprompt.store.ranking import BaseIndex, cosines, no_hits, ranked

_BLOCK_ROWS = 16_384


class ExactIndex(BaseIndex):
    """An index that scans the vectors of a space with numpy; effort changes nothing."""

    def __init__(self, vectors: VectorStore) -> None:
        super().__init__(vectors)
        self._vectors = vectors

    def search_checked(
        self,
        queries: Vectors,
        k: int,
        effort: float | None,  # noqa: ARG002 it is exact
        selection: Selection | None,
    ) -> Hits:
        hits = no_hits(len(queries), k)
        for ids, rows in self._blocks(selection):
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

    def _blocks(self, selection: Selection | None) -> Iterator[tuple[Ids, Vectors]]:
        """Yield (row ids, their vectors) of all selected rows."""
        if selection is None:
            for start, block in self._vectors.blocks(_BLOCK_ROWS):
                yield np.arange(start, start + len(block), dtype=np.int64), block
            return
        for start in range(0, len(selection.row_ids), _BLOCK_ROWS):
            ids = selection.row_ids[start : start + _BLOCK_ROWS]
            yield ids, self._vectors.rows(ids)
