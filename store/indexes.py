"""Indexes by their factory string: built, measured against the exact answer, and opened."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, VectorIndex
from imprompt.core.values import Hits, Vectors
from imprompt.store.faiss_import import import_faiss, require_inverted_files
from imprompt.store.faiss_index import FaissIndex, build_faiss_index
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import FLAT, MANY_ROWS, PART_ROWS, read_factory
from imprompt.store.ivf.ivf_files import build_ivf_index
from imprompt.store.ivf.ivf_index import IvfIndex, effort_of
from imprompt.store.manifest import IndexInfo
from imprompt.store.shards import ShardedVectors

WANTED_RECALL = 0.96
"""Of the ten nearest rows of stored rows, from a million rows on."""

WANTED_OF_FEWER = 0.997
"""The same below a million rows. With it pictures and new prompts find .995 or more, see
benchmarks/results/search_small.md."""


def build_index_file(
    folder: Path,
    file: str,
    vectors: ShardedVectors,
    *,
    factory: str = FLAT,
    seed: int = 0,
    part_rows: int = PART_ROWS,
    gpu: Gpu | None = None,
    progress: Progress = SILENT,
) -> IndexInfo:
    """Write the index of all vectors; effort and recall are for the caller to measure.

    An inverted file of more than `part_rows` rows becomes several files, named after `file`. Its
    lists are made on the `gpu` where there is one.

    Raises:
        ConfigError: the factory string is not known, FAISS cannot be loaded, or a GPU that is
            required refuses.
        StorageFull: the disk is full or may not be written.
    """
    import_faiss()
    if read_factory(factory, dim=vectors.dim).n_lists:
        return build_ivf_index(
            folder,
            file,
            vectors,
            factory=factory,
            seed=seed,
            part_rows=part_rows,
            gpu=gpu,
            progress=progress,
        )
    return build_faiss_index(folder, file, vectors, progress=progress)


def open_index(
    folder: Path, info: IndexInfo, vectors: ShardedVectors, *, mapped: bool = True
) -> VectorIndex:
    """Open the index that `info` records, over its vectors; in memory unless `mapped`.

    Raises:
        Checksum: the file is missing or is not the one that was recorded.
        ConfigError: FAISS cannot be loaded.
    """
    import_faiss()
    inverted = read_factory(info.factory).n_lists > 0
    if inverted:
        require_inverted_files()
    kind = IvfIndex if inverted else FaissIndex
    return kind(folder, info, vectors, mapped=mapped)


def measured(index: VectorIndex, info: IndexInfo, *, queries: Vectors, exact: Hits) -> IndexInfo:
    """Return the record with the least effort whose recall@10 is as wanted, and its recall.

    Tried are 1, 2, 3, 4, 5, 6, 7, 8, 10, … lists (by the fourth root of two); if none is enough,
    nearly all are visited.

    Args:
        index: opened from the record.
        queries: (q, dim) unit rows.
        exact: their exact 10 nearest rows.
    """
    n_lists = read_factory(info.factory).n_lists
    if n_lists <= 1:
        return msgspec.structs.replace(
            info, effort=1.0, recall_at_10=recall(exact, index.search(queries, 10))
        )
    wanted = WANTED_RECALL if len(index) >= MANY_ROWS else WANTED_OF_FEWER
    effort, found = 0.0, 0.0
    for nprobe in _efforts(n_lists):
        effort = effort_of(nprobe, n_lists)
        found = recall(exact, index.search(queries, 10, effort=effort))
        if found >= wanted:
            break
    return msgspec.structs.replace(info, effort=effort, recall_at_10=found)


def _efforts(n_lists: int) -> list[int]:
    """Return the numbers of lists that are tried, rising, all below `n_lists`."""
    steps = range(4 * n_lists.bit_length())
    return sorted({nprobe for step in steps if (nprobe := round(2 ** (step / 4))) < n_lists})


def recall(exact: Hits, found: Hits) -> float:
    """Return the share of the exact hits that were found, 0 to 1."""
    pairs = zip(exact.ids, found.ids, strict=True)
    return float(np.mean([np.isin(right[right >= 0], answer).mean() for right, answer in pairs]))
