"""Nearest neighbours with an inverted file: FAISS proposes rows by short codes, the stored vectors score them again.

A question looks into some of the lists ("probes"), takes the `POOL` best rows there by their codes, and orders those by their exact
cosines. How many lists depends on the effort alone, so the first 5 of 50 are the 5 of 5. Questions are asked one by one:
FAISS finds the nearest lists of a batch by another route than those of a single question, and the last bits would differ.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import Checksum
from core.files import atomic_write, sha256_file
from core.progress import Silent
from core.protocols import Progress
from core.values import Hits, Ids, IndexCaps, Vectors
from store.exact_index import ExactIndex
from store.faiss_index import faiss_errors, selection
from store.index_plan import RABITQ, TRAINING_ROWS_A_LIST, code_bytes, read_factory
from store.manifest import IndexInfo, sha256_bytes
from store.ranking import MAX_K, check_allowed, check_queries, no_hits, score_again
from store.shards import ShardedVectors

POOL = 128
"""Rows that are scored again; with codes of one bit, recall@10 among a million rows is within .001 of that with 256."""

_BLOCK_ROWS = 65_536
_TRAINING_ROUNDS = 10
_QUERY_BITS = 6  # of RaBitQ's questions: 8 give the same recall in more time, unrounded ones take forty times as long
_ID_BYTES = 8
_WIDER = 4
_HINT = "Build the index again."
_SILENT = Silent()


def build_ivf_index(
    folder: Path, file: str, vectors: ShardedVectors, *, factory: str, seed: int = 0, progress: Progress = _SILENT
) -> IndexInfo:
    """Train an inverted file on a sample of `vectors`, put all rows in by their codes, and write it.

    It takes memory for the codes, the sample and one block. The same vectors, seed and machine give the same bytes.

    Args:
        folder: the staging folder.
        file: relative path inside of it, from `layout.index_file`.
        factory: such as "IVF512,RaBitQ"; see `store.index_plan.read_factory`. There are at most as many lists as rows.
        seed: of the sample and of its clustering.

    Returns:
        The index's record; effort and recall are for the caller to measure and still 0.

    Raises:
        ConfigError: another factory string.
        StorageFull: the disk is full or may not be written.
    """
    import faiss

    factory = _at_most(factory, rows=len(vectors))
    index = _trained(vectors, factory, seed=seed, progress=progress)
    with progress.start("Filling the index", len(vectors)) as task:
        for _, block in vectors.blocks(_BLOCK_ROWS):
            index.add(block)
            task.advance(len(block))
    with atomic_write(folder / file) as opened:
        faiss.write_index(index, faiss.PyCallbackIOWriter(opened.write))
    header_bytes = (folder / file).stat().st_size - len(vectors) * (index.code_size + _ID_BYTES)
    with (folder / file).open("rb") as written:
        header = written.read(header_bytes)
    return IndexInfo(
        file=file,
        factory=factory,
        effort=0.0,
        recall_at_10=0.0,
        header_bytes=header_bytes,
        header_sha256=sha256_bytes(header),
    )


class IvfIndex:
    """A `core.protocols.VectorIndex` over an inverted file. Safe to search from several threads.

    The answer is the exact one among the candidates; `effort` 1 looks at every row. Up to k = 128 the candidates do not depend
    on k; a larger k takes more of them, and all lists if need be, so that k rows come where k rows exist.

    Args:
        folder: of the generation.
        info: the index's record; its `effort` is the default one.
        vectors: the space's vectors, in the same row order.
        mapped: False reads the file into memory.

    Raises:
        Checksum: the file is missing or is not the one that was recorded.
    """

    def __init__(self, folder: Path, info: IndexInfo, vectors: ShardedVectors, *, mapped: bool = True) -> None:
        self._path = folder / info.file
        self._vectors = vectors
        self._exact = ExactIndex(vectors)
        self._effort = info.effort
        self._codes = read_factory(info.factory).codes
        self._index = _open_ivf(self._path, info, rows=len(vectors), dim=vectors.dim, mapped=mapped)
        self._n_lists = int(self._index.nlist)

    @property
    def dim(self) -> int:
        return self._vectors.dim

    @property
    def caps(self) -> IndexCaps:
        return IndexCaps(max_k=MAX_K, filters=True, concurrent=True)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Vectors, k: int, *, effort: float | None = None, allowed: Ids | None = None) -> Hits:
        """The k nearest rows of each query; see `core.protocols.VectorIndex.search`.

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
        pool = min(POOL if k <= POOL else 2 * k, n_allowed)
        selector = None if allowed is None else selection(allowed, rows=len(self))
        for i in range(len(queries)):
            candidates = self._candidates(queries[i : i + 1], pool, probes_of(effort, self._n_lists), selector)
            score_again(hits, i, queries[i : i + 1], candidates, self._vectors)
        return hits

    def _candidates(self, query: Vectors, pool: int, n_probes: int, selector: Any) -> Ids:
        """Row ids of the `pool` best codes; more lists are looked into until there are so many."""
        import faiss

        rabitq = self._codes == RABITQ
        while True:
            params = faiss.IVFRaBitQSearchParameters() if rabitq else faiss.SearchParametersIVF()
            params.nprobe = n_probes
            if rabitq:
                params.qb = _QUERY_BITS
            if selector is not None:
                params.sel = selector
            with faiss_errors(self._path):
                _, ids = self._index.search(query, pool, params=params)
            found: Ids = ids[0][ids[0] >= 0]
            if found.size and found.max() >= len(self):
                raise Checksum(f"{self._path} names rows that do not exist.", path=self._path, hint=_HINT)
            if len(found) == pool or n_probes == self._n_lists:
                return found
            n_probes = min(n_probes * _WIDER, self._n_lists)


def probes_of(effort: float, n_lists: int) -> int:
    """How many of the lists are looked into: from 1 with effort 0 to all with effort 1, by equal factors."""
    return min(max(round(math.exp(effort * math.log(n_lists))), 1), n_lists)


def effort_of(n_probes: int, n_lists: int) -> float:
    """The effort with which `probes_of` gives so many lists."""
    return math.log(n_probes) / math.log(n_lists) if n_lists > 1 else 1.0


def _at_most(factory: str, *, rows: int) -> str:
    """The factory string with at most as many lists as rows: FAISS refuses to find more."""
    n_lists = read_factory(factory).n_lists
    return factory.replace(f"IVF{n_lists}", f"IVF{min(n_lists, rows)}", 1)


def _trained(vectors: ShardedVectors, factory: str, *, seed: int, progress: Progress) -> Any:
    """An empty index whose lists and codes are fitted to a sample of the rows."""
    import faiss

    size = min(len(vectors), TRAINING_ROWS_A_LIST * read_factory(factory).n_lists)
    row_ids = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:size])
    index = faiss.index_factory(vectors.dim, factory, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed % (1 << 31)
    index.cp.niter = _TRAINING_ROUNDS
    index.cp.min_points_per_centroid = 1  # FAISS warns on stderr below 39; a small corpus is no fault
    index.cp.max_points_per_centroid = TRAINING_ROWS_A_LIST
    with progress.start("Training the index", None):
        index.train(vectors.rows(row_ids))
    return index


def _open_ivf(path: Path, info: IndexInfo, *, rows: int, dim: int, mapped: bool) -> Any:
    """The index, mapped or in memory. All that FAISS interprets (not codes and ids) is compared by hash before it reads it."""
    import faiss

    expected = info.header_bytes + rows * (code_bytes(read_factory(info.factory).codes, dim) + _ID_BYTES)
    try:
        size = path.stat().st_size
        header_sha256 = sha256_file(path, length=min(info.header_bytes, size))
    except OSError as error:
        raise Checksum(f"{path} cannot be read: {error.strerror}.", path=path, hint=_HINT) from error
    if size != expected or header_sha256 != info.header_sha256:
        raise Checksum(
            f"{path} is not the {info.factory} index of {rows} rows that was recorded ({size} bytes).", path=path, hint=_HINT
        )
    with faiss_errors(path):
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    if index.ntotal != rows or index.d != dim:
        raise Checksum(f"{path} holds {index.ntotal} rows of {index.d}, not {rows} of {dim}.", path=path, hint=_HINT)
    return index
