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
from imprompt.core.values import Hits, Ids, Selection, Vectors
from imprompt.store.exact_index import ExactIndex
from imprompt.store.faiss_index import faiss_errors, selector
from imprompt.store.index_plan import RABITQ, read_factory
from imprompt.store.ivf.ivf_files import open_ivf, turned
from imprompt.store.layout import REBUILD
from imprompt.store.manifest import IndexInfo
from imprompt.store.ranking import CAPS, BaseIndex, no_hits, ranked, score_again
from imprompt.store.shards import ShardedVectors

POOL = CAPS.steady_k
"""The least number of rows that are scored again.

Where more lists than that are visited, as many rows as lists are: the best codes of more rows hold
fewer of the nearest.
"""

# Of RaBitQ's queries: 8 give the same recall in more time, unrounded ones take forty times as long.
_QUERY_BITS = 6
_WIDER = 4


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
        selected = selector(selection, rows=len(self))
        for i in range(len(queries)):
            query = queries[i : i + 1]
            candidates = self._candidates(turned(query, self._rotation), pool, nprobe, selected)
            score_again(hits, i, query, candidates, self._vectors)
        return hits

    def finds(self, row: Vectors, row_id: int) -> bool:
        """Return whether the two lists nearest to a stored row, (1, dim), give it by its code."""
        query, n_codes = turned(row, self._rotation), POOL * self._lists_a_row
        return bool((self._visit(query, n_codes, min(2, self._n_lists), None) == row_id).any())

    def _candidates(self, query: Vectors, pool: int, nprobe: int, selected: Any) -> Ids:
        """Return the row ids of the best codes for a turned query, rising, each once.

        They are `pool` or more; more lists are visited until so many are found.
        """
        while True:
            ids = np.unique(self._visit(query, pool * self._lists_a_row, nprobe, selected))
            ids = ids[ids.searchsorted(0) :]
            if ids.size and ids[-1] >= len(self):
                raise Checksum(
                    f"{self._path} names rows that do not exist.", path=self._path, hint=REBUILD
                )
            if len(ids) >= pool or nprobe == self._n_lists:
                return ids
            nprobe = min(nprobe * _WIDER, self._n_lists)

    def _visit(self, query: Vectors, n_codes: int, nprobe: int, selected: Any) -> Ids:
        """Return the row ids of the best codes in the lists nearest to the query; -1 pads them."""
        import faiss

        params = faiss.IVFRaBitQSearchParameters() if self._rabitq else faiss.SearchParametersIVF()
        params.nprobe = nprobe
        if self._rabitq:
            params.qb = _QUERY_BITS
        if selected is not None:
            params.sel = selected
        nearness, lists = np.empty(nprobe, dtype=np.float32), np.empty(nprobe, dtype=np.int64)
        asked, near, assigned = map(faiss.swig_ptr, (query, nearness, lists))
        # FAISS's wrappers take no parameters, or check again what is known. A call for one query
        # stays in its thread and lets others run.
        self._centroids.search_c(1, asked, nprobe, near, assigned)
        self._lists.check(lists)

        def look(part: Any) -> tuple[Ids, NDArray[np.float32]]:
            ids, scores = np.empty(n_codes, dtype=np.int64), np.empty(n_codes, dtype=np.float32)
            best = faiss.swig_ptr(scores), faiss.swig_ptr(ids)
            with faiss_errors(self._path):
                part.search_preassigned_c(1, asked, n_codes, assigned, near, *best, False, params)
            return ids, scores

        if len(self._parts) == 1:
            return look(self._parts[0])[0]
        of_parts = list((self._threads.map if self._threads else map)(look, self._parts))
        ids = np.concatenate([ids for ids, _ in of_parts])
        scores = np.concatenate([scores for _, scores in of_parts])
        kept = (ids >= 0) & ~np.isnan(scores)
        return ranked(ids[kept], scores[kept], n_codes)[0]


def nprobe_of(effort: float, n_lists: int) -> int:
    """Return how many lists are visited: 1 with effort 0 to all with 1, by equal factors."""
    return min(max(round(math.exp(effort * math.log(n_lists))), 1), n_lists)


def effort_of(nprobe: int, n_lists: int) -> float:
    """Return the effort with which `nprobe_of` gives so many lists."""
    return math.log(nprobe) / math.log(n_lists) if n_lists > 1 else 1.0
