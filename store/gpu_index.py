"""Nearest neighbours from a GPU, which compares all rows and so finds what `--effort` 1 finds.

The GPU holds the stored float16 vectors, never the codes of the index on disk: FAISS has no one-bit
codes there, and a scan of everything is what a GPU is quick at. Its scores are only used to leave
rows out; the rest is scored again from the stored vectors, so the answer has the bits of the exact
one. Not run on a GPU yet.
"""

from __future__ import annotations

from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import VectorIndex
from imprompt.core.values import Hits, Ids, Selection, Vectors
from imprompt.store.faiss_import import import_faiss
from imprompt.store.gpu import GPU_POOL, Clone, Gpu
from imprompt.store.ranking import BaseIndex, Scanned, no_hits, score_again
from imprompt.store.shards import ShardedVectors

PIECE_ROWS = 1 << 19
"""Rows of one index on the GPU.

FAISS moves an index that grows, which takes its memory twice for a while: that of a piece only.
"""

_BLOCK_ROWS = 65_536
_QUERIES_AT_ONCE = 256


class _Piece(NamedTuple):
    """Consecutive rows on the GPU, from row id `start` on."""

    start: int
    index: Any


class _Scan(NamedTuple):
    """The GPU's proposals for q queries: `ids` and `scores` (q, n), unordered.

    No other row scores more than `rest` (q,).
    """

    ids: Ids
    scores: NDArray[np.float32]
    rest: NDArray[np.float32]


class GpuIndex(BaseIndex):
    """An exact index on a GPU, over one on the processor. Safe to search from threads.

    The processor's index answers what the GPU cannot: searches among selected rows (FAISS has few
    filters there), those whose answer cannot be proven from `GPU_POOL` rows of each piece (many
    rows tie, or k is near that), and all where the GPU gives up. Elsewhere effort changes nothing.
    The vectors go to the GPU at the first search. It holds those of one index: once another one is
    filled, this one is searched on the processor.

    Args:
        cpu: an index of the same rows.
        vectors: the space's vectors, in the same row order.

    Raises:
        ConfigError: the GPU refuses, and it is required (from a search).
        Checksum: a file is damaged (from a search).
    """

    def __init__(
        self, cpu: VectorIndex, vectors: ShardedVectors, gpu: Gpu, *, piece_rows: int = PIECE_ROWS
    ) -> None:
        super().__init__(vectors)
        self._cpu = cpu
        self._vectors = vectors
        self._gpu = gpu
        self._piece_rows = piece_rows
        self._pieces: list[_Piece] = []
        self._filled = self._evicted = False
        self._filling = Lock()
        # How far the GPU's scores can be off: a unit row's length moved by at most 2^-11 when it
        # was rounded to float16, the query is rounded so, too, and float32 sums are at most 2^-24
        # off a term, four times that where they are cut.
        self._scan_error = 2.02 * 2.0**-11 + vectors.dim * 2.0**-22

    def search_checked(
        self, queries: Vectors, k: int, effort: float | None, selection: Selection | None
    ) -> Hits:
        if selection is not None or not len(queries) or not self._ready():
            return self._cpu.search(queries, k, effort=effort, selection=selection)
        hits = no_hits(len(queries), k)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            proposed = self._candidates(queries[start : start + _QUERIES_AT_ONCE], k)
            if proposed is None:
                return self._cpu.search(queries, k, effort=effort)
            for i, candidates in enumerate(proposed, start):
                query = queries[i : i + 1]
                if candidates is None:
                    exact = self._cpu.search(query, k, effort=1.0)
                    hits.ids[i], hits.scores[i] = exact.ids[0], exact.scores[0]
                else:
                    scanned = Scanned(candidates[1], self._scan_error, self._vectors.folder)
                    score_again(hits, i, query, candidates[0], self._vectors, scanned=scanned)
        return hits

    def close(self) -> None:
        """Take the vectors off the GPU; the next search would put them there again."""
        with self._filling:
            self._filled = False
            self._gpu.release(self._pieces)

    def _ready(self) -> bool:
        """Return whether the vectors are on the GPU; the first caller puts them there."""
        with self._filling:
            if not self._filled and not self._evicted:
                self._filled = self._gpu.attempt("hold the vectors", self._fill) is not None
                if not self._filled:
                    self._gpu.release(self._pieces)
            return self._filled and not self._evicted

    def _fill(self, clone: Clone) -> bool:
        faiss = import_faiss()
        needed = len(self) * self.dim * 2
        if 0 < self._gpu.memory_bytes < needed:
            raise RuntimeError(
                f"they take {needed / 1e9:,.1f} GB, it has {self._gpu.memory_bytes / 1e9:,.1f} GB"
            )
        self._gpu.make_room(self._leave)
        self._pieces.clear()
        for start in range(0, len(self), self._piece_rows):
            piece = _Piece(start, clone(faiss.IndexFlatIP(self.dim), float16=True))
            self._pieces.append(piece)
            stop = min(start + self._piece_rows, len(self))
            for begin in range(start, stop, _BLOCK_ROWS):
                piece.index.add(
                    self._vectors.codes(begin, min(begin + _BLOCK_ROWS, stop)).astype(np.float32)
                )
        return True

    def _leave(self) -> None:
        self._evicted = True
        self._pieces.clear()

    def _candidates(
        self, queries: Vectors, k: int
    ) -> list[tuple[Ids, NDArray[np.float32]] | None] | None:
        """Return row ids that certainly hold each query's k nearest, with the GPU's scores.

        A query for which that cannot be proven gets None; None for all where the GPU gave up.
        """
        proposed: list[tuple[Ids, NDArray[np.float32]] | None] = [None] * len(queries)
        pending = np.arange(len(queries))
        for pool in sorted({min(4 * k + 256, GPU_POOL), GPU_POOL}):
            scan = self._gpu.attempt("search", partial(self._scan, queries[pending], pool))
            if scan is None:
                return None
            # The k-th best is at least this good, so what scans below it, by more than both can be
            # off, is out.
            floor = _kth_best(scan.scores, k) - 2 * self._scan_error
            proven = (scan.rest < floor) | np.isneginf(scan.rest)
            for row in np.flatnonzero(proven):
                kept = (scan.scores[row] >= floor[row]) & (scan.ids[row] >= 0)
                proposed[int(pending[row])] = scan.ids[row][kept], scan.scores[row][kept]
            pending = pending[~proven]
            if not pending.size:
                break
        return proposed

    def _scan(self, queries: Vectors, pool: int, _: Clone) -> _Scan | None:
        if self._evicted:
            return None
        ids, scores = [], []
        rest = np.full(len(queries), -np.inf, dtype=np.float32)
        for start, index in self._pieces:
            size = min(pool, int(index.ntotal))
            found_scores, found_ids = index.search(queries, size)
            found_scores = np.nan_to_num(found_scores, nan=-np.inf)
            ids.append(np.where(found_ids >= 0, found_ids + start, -1))
            scores.append(found_scores)
            if size < index.ntotal:
                rest = np.maximum(rest, found_scores[:, -1])
        return _Scan(np.concatenate(ids, axis=1), np.concatenate(scores, axis=1), rest)


def _kth_best(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return (q,) the k-th largest of each row of scores; -inf where there are fewer."""
    if scores.shape[1] < k:
        return np.full(len(scores), -np.inf, dtype=np.float32)
    return np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
