"""Questions whose exact answer is known: how an index is measured when it is built and checked when it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, VectorIndex, VectorStore
from imprompt.core.values import Hits, Ids, Vectors
from imprompt.store import layout
from imprompt.store.exact_index import ExactIndex
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import FLAT, PART_ROWS
from imprompt.store.indexes import build_index_file, measured, open_index
from imprompt.store.ivf.ivf_index import IvfIndex
from imprompt.store.manifest import CheckQuery, IndexInfo, ShardRecord
from imprompt.store.shards import ShardedVectors

PROBES = 16
PROBE_HITS = 5
_MEASURED_ROWS = 64
_SCORE_TOLERANCE = 1e-5


def index_space(
    folder: Path,
    space: str,
    shards: Sequence[ShardRecord],
    *,
    factory: str = FLAT,
    seed: int = 0,
    part_rows: int = PART_ROWS,
    gpu: Gpu | None = None,
    progress: Progress = SILENT,
) -> tuple[IndexInfo, list[CheckQuery]]:
    """Index one space of a staged build and measure the index against the exact answer.

    Args:
        folder: the staging folder.
        space: name of the vector space.
        shards: its shards in row order.
        factory: FAISS's factory string.
        seed: of the rows that it is measured with.
        part_rows: above so many rows an inverted file has several parts.
        gpu: where the index is made; None for the processor.

    Returns:
        The index's record with its recall@10 over 64 stored rows (all rows where there are fewer),
        and the probes: the exact top 5 of 16 of those.

    Raises:
        ConfigError: the factory is not known, FAISS cannot be loaded, or a GPU that is required
            refuses.
        StorageFull: the disk is full or may not be written.
        Checksum: a shard is not what its record says.
    """
    vectors = ShardedVectors(folder, shards)
    file = layout.index_file(space)
    info = build_index_file(
        folder,
        file,
        vectors,
        factory=factory,
        seed=seed,
        part_rows=part_rows,
        gpu=gpu,
        progress=progress,
    )
    row_ids = (
        np.random.default_rng(seed).permutation(len(vectors))[:_MEASURED_ROWS].astype(np.int64)
    )
    queries = vectors.rows(row_ids)
    with progress.start("Measuring the index", None):
        exact = ExactIndex(vectors).search(queries, 10)
        info = measured(folder, info, vectors, queries=queries, exact=exact)
    probes = _probes(row_ids, exact)
    index = open_index(folder, info, vectors)
    if isinstance(index, IvfIndex):
        n_found = _found(probes, queries[:PROBES], index)
        if 2 * n_found >= len(
            probes
        ):  # fewer, where many rows are equal, would not tell damage from ties
            info = msgspec.structs.replace(info, probes_found=n_found)
    return info, probes


def check_query_problem(
    probes: Sequence[CheckQuery], vectors: VectorStore, index: VectorIndex, *, all_rows: bool
) -> str | None:
    """What is wrong with the answers to the probes, in one phrase; None where they are as recorded.

    Unless `all_rows`, only the rows that the probes name are searched. They must give the recorded
    answers too, and that reads little: 0.13 s among two million rows of 384 dimensions, where
    searching them all takes 2.2 s. So few rows, or all of them, are compared with the stored
    vectors; the codes of an inverted file are asked by themselves. Other processors round codes
    otherwise, so that half of the probes that they found when they were made
    (`IndexInfo.probes_found`) are enough.
    """
    if not probes:
        return None
    named = np.unique(
        np.array(
            [row_id for probe in probes for row_id in (probe.row_id, *probe.ids)], dtype=np.int64
        )
    )
    if (
        named[0] < 0
        or named[-1] >= len(vectors)
        or any(len(probe.ids) != len(probe.scores) for probe in probes)
    ):
        return "the probes name rows that do not exist"
    queries = vectors.rows(np.array([probe.row_id for probe in probes]))
    hits = index.search(queries, PROBE_HITS, effort=1.0, allowed=None if all_rows else named)
    for probe, ids, scores in zip(probes, hits.ids, hits.scores, strict=True):
        found = ids[ids >= 0].tolist()
        if (
            found != probe.ids
            or np.abs(scores[: len(found)] - probe.scores).max() > _SCORE_TOLERANCE
        ):
            return f"row {probe.row_id} is nearest to {found}, not to {probe.ids} with the scores recorded"
    if (
        isinstance(index, IvfIndex)
        and 2 * (n_found := _found(probes, queries, index)) < index.probes_found
    ):
        return f"{n_found} of {len(probes)} rows are found by their codes, not {index.probes_found} as when the index was made"
    return None


def _found(probes: Sequence[CheckQuery], rows: Vectors, index: IvfIndex) -> int:
    """How many of the probes' rows are found by their codes."""
    return sum(
        index.finds(rows[place : place + 1], probe.row_id) for place, probe in enumerate(probes)
    )


def _probes(row_ids: Ids, exact: Hits) -> list[CheckQuery]:
    probes = []
    for row_id, ids, scores in zip(row_ids[:PROBES], exact.ids, exact.scores, strict=False):
        kept = ids[:PROBE_HITS] >= 0
        probes.append(
            CheckQuery(
                int(row_id), ids[:PROBE_HITS][kept].tolist(), scores[:PROBE_HITS][kept].tolist()
            )
        )
    return probes
