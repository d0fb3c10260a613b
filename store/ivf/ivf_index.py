"""Nearest neighbours with an inverted file: FAISS proposes rows by short codes, the stored vectors score them again.

A question looks into some of the lists ("probes"), takes the best rows there by their codes, `POOL`
or as many as there are probes, and orders those by their exact cosines. How many lists depends on
the effort alone, so the first 5 of 50 are the 5 of 5. Questions are asked one by one: FAISS finds
the nearest lists of a batch by another route than those of a single question, and the last bits
would differ.

Where rows stand in two lists, twice as many codes are taken, so that as many rows at least are
among them.

Where the inverted file has several parts, the lists are found once and each part is looked through
by a thread of its own; the best codes of all parts are those that one file would have proposed, but
for the choice among codes that tie at the end.
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
from imprompt.core.values import Hits, Ids, IndexCaps, Vectors
from imprompt.store.exact_index import ExactIndex
from imprompt.store.faiss_index import faiss_errors, selection
from imprompt.store.index_plan import RABITQ, read_factory
from imprompt.store.ivf.ivf_files import open_ivf, turned
from imprompt.store.manifest import IndexInfo
from imprompt.store.ranking import MAX_K, check_allowed, check_queries, no_hits, ranked, score_again
from imprompt.store.shards import ShardedVectors

POOL = 128
"""Rows that are scored again at least. Where more lists than that are looked into, as many rows as lists: the best codes among more
rows hold less of the nearest."""

_QUERY_BITS = 6  # of RaBitQ's questions: 8 give the same recall in more time, unrounded ones take forty times as long
_WIDER = 4
_HINT = "Build the index again."


class IvfIndex:
    """A `imprompt.core.protocols.VectorIndex` over an inverted file. Safe to search from several threads.

    The answer is the exact one among the candidates; `effort` 1 looks at every row. Up to k = 128
    the candidates do not depend on k; a larger k takes more of them, and all lists if need be, so
    that k rows come where k rows exist.

    Args:
        folder: of the version.
        info: the index's record; its `effort` is the default one.
        vectors: the space's vectors, in the same row order.
        mapped: False reads the file into memory.

    Raises:
        Checksum: the file is missing or is not the one that was recorded.
    """

    def __init__(
        self, folder: Path, info: IndexInfo, vectors: ShardedVectors, *, mapped: bool = True
    ) -> None:
        self._path = folder / info.file
        self._vectors = vectors
        self._exact = ExactIndex(vectors)
        self._effort = info.effort
        self.probes_found = info.probes_found
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

        Where few rows are allowed they are all looked at, which is exact and quicker.

        Raises:
            Checksum: the file is damaged.
        """
        queries = check_queries(queries, k, effort=effort, dim=self.dim)
        allowed = check_allowed(allowed, rows=len(self))
        effort = self._effort if effort is None else effort
        n_allowed = len(self) if allowed is None else len(allowed)
        if effort >= 1 or n_allowed <= 2 * max(POOL, k):
            return self._exact.search(queries, k, allowed=allowed)
        hits = no_hits(len(queries), k)
        nprobe = nprobe_of(effort, self._n_lists)
        pool = min(max(POOL if k <= POOL else 2 * k, nprobe), n_allowed)
        selector = None if allowed is None else selection(allowed, rows=len(self))
        for i in range(len(queries)):
            candidates = self._candidates(
                turned(queries[i : i + 1], self._rotation), pool, nprobe, selector
            )
            score_again(hits, i, queries[i : i + 1], candidates, self._vectors)
        return hits

    def finds(self, row: Vectors, row_id: int) -> bool:
        """Whether a stored row, (1, dim), is among those with the best codes in the two lists that are nearest to it."""
        ids = self._look_into(
            turned(row, self._rotation), POOL * self._lists_a_row, min(2, self._n_lists), None
        )
        return bool((ids == row_id).any())

    def _candidates(self, query: Vectors, pool: int, nprobe: int, selector: Any) -> Ids:
        """Row ids of the best codes for a question as the index has it, rising, each once: `pool` of them or more, for which more
        lists are looked into."""
        while True:
            ids = np.unique(self._look_into(query, pool * self._lists_a_row, nprobe, selector))
            ids = ids[ids.searchsorted(0) :]
            if ids.size and ids[-1] >= len(self):
                raise Checksum(
                    f"{self._path} names rows that do not exist.", path=self._path, hint=_HINT
                )
            if len(ids) >= pool or nprobe == self._n_lists:
                return ids
            nprobe = min(nprobe * _WIDER, self._n_lists)

    def _look_into(self, query: Vectors, n_codes: int, nprobe: int, selector: Any) -> Ids:
        """The row ids of the `n_codes` best codes in the lists that are nearest to the query; -1 where there are fewer."""
        import faiss

        params = faiss.IVFRaBitQSearchParameters() if self._rabitq else faiss.SearchParametersIVF()
        params.nprobe = nprobe
        if self._rabitq:
            params.qb = _QUERY_BITS
        if selector is not None:
            params.sel = selector
        nearness, lists = np.empty(nprobe, dtype=np.float32), np.empty(nprobe, dtype=np.int64)
        asked, near, assigned = map(faiss.swig_ptr, (query, nearness, lists))
        # FAISS's own wrappers take no parameters, or check again what is known. A call for one
        # question stays in its thread and
        # lets others run.
        self._centroids.search_c(1, asked, nprobe, near, assigned)
        self._lists.check(lists)

        def look(part: Any) -> tuple[Ids, NDArray[np.float32]]:
            ids, scores = np.empty(n_codes, dtype=np.int64), np.empty(n_codes, dtype=np.float32)
            found = faiss.swig_ptr(scores), faiss.swig_ptr(ids)
            with faiss_errors(self._path):
                part.search_preassigned_c(1, asked, n_codes, assigned, near, *found, False, params)
            return ids, scores

        if len(self._parts) == 1:
            return look(self._parts[0])[0]
        of_parts = list((self._threads.map if self._threads else map)(look, self._parts))
        ids, scores = (
            np.concatenate([ids for ids, _ in of_parts]),
            np.concatenate([scores for _, scores in of_parts]),
        )
        kept = (ids >= 0) & ~np.isnan(scores)
        return ranked(ids[kept], scores[kept], n_codes)[0]


def nprobe_of(effort: float, n_lists: int) -> int:
    """How many of the lists are looked into: from 1 with effort 0 to all with effort 1, by equal factors."""
    return min(max(round(math.exp(effort * math.log(n_lists))), 1), n_lists)


def effort_of(nprobe: int, n_lists: int) -> float:
    """The effort with which `nprobe_of` gives so many lists."""
    return math.log(nprobe) / math.log(n_lists) if n_lists > 1 else 1.0
