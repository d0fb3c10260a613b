"""Nearest neighbours with an inverted file: short codes propose rows, stored vectors score them.

A search visits the `nprobe` lists nearest to the query, takes the best rows there by their codes
(`POOL`, or `nprobe` if that is more) and orders them by their exact cosines. `nprobe` depends on
the effort alone, so the first 5 of 50 are the 5 of 5. Queries are searched one by one: for a batch
FAISS finds the nearest lists by another route, and the last bits would differ.

Where rows stand in two lists, twice as many codes are taken, so that as many rows are among them.

Where the inverted file has several parts, the lists are found once and each part is searched by a
thread. The best codes of all parts are those that one file would have proposed, but for the choice
among codes that tie at the end.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import Checksum
from imprompt.core.values import NO_HIT, Hits, Ids, Selection, Vectors
from imprompt.store.exact_index import ExactIndex
from imprompt.store.faiss_index import faiss_errors, selector
from imprompt.store.index_plan import RABITQ, read_factory
from imprompt.store.ivf.ivf_files import open_ivf, turned
from imprompt.store.layout import REBUILD
from imprompt.store.manifest import IndexInfo
from imprompt.store.ranking import CAPS, BaseIndex, no_hits, ranked
from imprompt.store.shards import ShardedVectors

POOL = CAPS.steady_k
"""The least number of rows that are scored again.

Where more lists than that are visited, as many rows as lists are: the best codes of more rows hold
fewer of the nearest.
"""

# Of RaBitQ's queries: 8 give the same recall in more time, unrounded ones take forty times as long.
_QUERY_BITS = 6
_WIDER = 4
# From 20 queries on FAISS finds the nearest centroids by a product of matrices, with other last
# bits.
_QUERIES_AT_ONCE = 16


class IvfIndex(BaseIndex):
    """An inverted file. Safe to search from threads.

    The answer is the exact one among the candidates; effort 1 compares every row, and so do
    searches among few selected ones. Beyond k = `caps.steady_k` more candidates are taken, from all
    lists if need be, so that k rows come where k rows exist.

    Args:
        folder: of the version.
        info: the index's record; its `effort` is the default one.
        vectors: the space's vectors, in the same row order.
        mapped: False reads the file into memory.

    Raises:
        Checksum: the file is missing or is not the one that was recorded; also from a search.
    """

    def __init__(
        self, folder: Path, info: IndexInfo, vectors: ShardedVectors, *, mapped: bool = True
    ) -> None:
        super().__init__(vectors)
        self._path = folder / info.file
        self._vectors = vectors
        self._exact = ExactIndex(vectors)
        self._effort = info.effort
        self.check_queries_found = info.check_queries_found
        parsed = read_factory(info.factory)
        self._rabitq = parsed.codes == RABITQ
        self._lists_a_row = parsed.lists_a_row
        self._parts, self._rotation, self._lists = open_ivf(
            folder, info, rows=len(vectors), dim=vectors.dim, mapped=mapped
        )
        self._centroids = self._parts[0].quantizer
        self._n_lists = int(self._parts[0].nlist)
        workers = min(len(self._parts), os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(workers, "index-part") if workers > 1 else None

    def search_checked(
        self, queries: Vectors, k: int, effort: float | None, selection: Selection | None
    ) -> Hits:
        effort = self._effort if effort is None else effort
        n_selected = self._n_selected(selection)
        if effort >= 1 or n_selected <= 2 * max(POOL, k):
            return self._exact.search_checked(queries, k, effort, selection)
        hits = no_hits(len(queries), k)
        nprobe = nprobe_of(effort, self._n_lists)
        pool = min(max(POOL if k <= POOL else 2 * k, nprobe), n_selected)
        n_codes = pool * self._lists_a_row
        selected = selector(selection, rows=len(self))
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = self._turned(queries[start : start + _QUERIES_AT_ONCE])
            for i, codes in enumerate(self._visit(some, n_codes, nprobe, selected)):
                row = start + i
                candidates = self._rows_of(codes)
                wider = nprobe
                while len(candidates) < pool and wider < self._n_lists:
                    wider = min(wider * _WIDER, self._n_lists)
                    (codes,) = self._visit(some[i : i + 1], n_codes, wider, selected)
                    candidates = self._rows_of(codes)
                ids, scores = self._vectors.nearest(queries[row : row + 1], candidates, k)
                hits.ids[row, : len(ids)] = ids
                hits.scores[row, : len(ids)] = scores
        return hits

    def finds(self, row: Vectors, row_id: int) -> bool:
        """Return whether the two lists nearest to a stored row, (1, dim), give it by its code."""
        n_codes, nprobe = POOL * self._lists_a_row, min(2, self._n_lists)
        return bool((self._visit(self._turned(row), n_codes, nprobe, None) == row_id).any())

    def _turned(self, queries: Vectors) -> Vectors:
        """Return (q, dim) queries as the index has its rows, each multiplied by itself.

        A product of matrices would round a query differently from batch to batch.
        """
        return turned(queries[:, None], self._rotation)[:, 0]

    def _rows_of(self, codes: Ids) -> Ids:
        """Return the row ids of codes that were found, rising, each once; -1 stands for none."""
        ids = np.unique(codes)
        ids = ids[ids.searchsorted(0) :]
        if ids.size and ids[-1] >= len(self):
            raise Checksum(
                f"{self._path} names rows that do not exist.", path=self._path, hint=REBUILD
            )
        return ids

    def _visit(self, queries: Vectors, n_codes: int, nprobe: int, selected: Any) -> Ids:
        """Return the row ids, (q, n_codes), of the best codes in the lists nearest to each query.

        Args:
            queries: (q, dim) turned queries, at most `_QUERIES_AT_ONCE`.

        Returns:
            They are padded with -1, and may hold a row twice.
        """
        import faiss

        params = faiss.IVFRaBitQSearchParameters() if self._rabitq else faiss.SearchParametersIVF()
        params.nprobe = nprobe
        if self._rabitq:
            params.qb = _QUERY_BITS
        if selected is not None:
            params.sel = selected
        n = len(queries)
        nearness = np.empty((n, nprobe), dtype=np.float32)
        lists = np.empty((n, nprobe), dtype=np.int64)
        asked, near, assigned = map(faiss.swig_ptr, (queries, nearness, lists))
        # FAISS's wrappers take no parameters, or check again what is known. A call for one query
        # stays in its thread and lets others run.
        self._centroids.search_c(n, asked, nprobe, near, assigned)
        self._lists.check(lists)

        def look(part: Any) -> tuple[Ids, NDArray[np.float32]]:
            ids = np.empty((n, n_codes), dtype=np.int64)
            scores = np.empty((n, n_codes), dtype=np.float32)
            best = faiss.swig_ptr(scores), faiss.swig_ptr(ids)
            with faiss_errors(self._path):
                part.search_preassigned_c(n, asked, n_codes, assigned, near, *best, False, params)
            return ids, scores

        if len(self._parts) == 1:
            return look(self._parts[0])[0]
        of_parts = list((self._threads.map if self._threads else map)(look, self._parts))
        ids = np.concatenate([ids for ids, _ in of_parts], axis=1)
        scores = np.concatenate([scores for _, scores in of_parts], axis=1)
        found = np.full((n, n_codes), NO_HIT, dtype=np.int64)
        for row, (row_ids, row_scores) in enumerate(zip(ids, scores, strict=True)):
            kept = (row_ids >= 0) & ~np.isnan(row_scores)
            best_ids = ranked(row_ids[kept], row_scores[kept], n_codes)[0]
            found[row, : len(best_ids)] = best_ids
        return found


def nprobe_of(effort: float, n_lists: int) -> int:
    """Return how many lists are visited: 1 with effort 0 to all with 1, by equal factors."""
    return min(max(round(math.exp(effort * math.log(n_lists))), 1), n_lists)


def effort_of(nprobe: int, n_lists: int) -> float:
    """Return the effort with which `nprobe_of` gives so many lists."""
    return math.log(nprobe) / math.log(n_lists) if n_lists > 1 else 1.0
