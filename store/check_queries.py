"""Check queries: stored rows whose exact answers are recorded when an index is built.

The index is measured by such answers when it is built, and compared with them when it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, VectorIndex, VectorStore
from imprompt.core.values import Hits, Ids, Selection, Vectors
from imprompt.store import layout
from imprompt.store.exact_index import ExactIndex
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import FLAT, MANY_ROWS, PART_ROWS
from imprompt.store.indexes import build_index_file, measured, open_index
from imprompt.store.ivf.ivf_index import IvfIndex
from imprompt.store.manifest import CheckQuery, IndexInfo, ShardRecord
from imprompt.store.shards import ShardedVectors

N_QUERIES = 16
N_HITS = 5
_MEASURED_ROWS, _MEASURED_OF_MANY = 256, 64
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
        shards: of the space, in row order.
        seed: of the rows that it is measured with.

    Returns:
        The index's record with its recall@10 over 256 stored rows, 64 from a million rows on, or
        all where there are fewer; and the check queries: the exact top 5 of 16 of those.

    Raises:
        Checksum: a shard is not what its record says.
        ConfigError, StorageFull: as `imprompt.store.indexes.build_index_file`.
    """
    vectors = ShardedVectors(folder, shards)
    info = build_index_file(
        folder,
        layout.index_file(space),
        vectors,
        factory=factory,
        seed=seed,
        part_rows=part_rows,
        gpu=gpu,
        progress=progress,
    )
    n_measured = _MEASURED_OF_MANY if len(vectors) >= MANY_ROWS else _MEASURED_ROWS
    row_ids = np.random.default_rng(seed).permutation(np.arange(len(vectors)))[:n_measured]
    queries = vectors.rows(row_ids)
    with progress.start("Measuring the index", None):
        exact = ExactIndex(vectors).search(queries, 10)
        index = open_index(folder, info, vectors)
        info = measured(index, info, queries=queries, exact=exact)
    check_queries = _first_answers(row_ids, exact)
    if isinstance(index, IvfIndex):
        n_found = _n_found(check_queries, queries[:N_QUERIES], index)
        # Where fewer are found, because many rows are equal, they would not tell damage from ties.
        if 2 * n_found >= len(check_queries):
            info = msgspec.structs.replace(info, check_queries_found=n_found)
    return info, check_queries


def check_query_problem(
    check_queries: Sequence[CheckQuery], vectors: VectorStore, index: VectorIndex, *, all_rows: bool
) -> str | None:
    """Return what is wrong with the answers to check queries, in one phrase; None if nothing is.

    Unless `all_rows`, only the rows that the check queries name are searched. They must give the
    recorded answers too, and that reads little: 0.13 s among two million rows of 384 dimensions,
    where searching them all takes 2.2 s. So few rows, or all of them, are compared with the stored
    vectors; the codes of an inverted file are tested by themselves. Other processors round codes
    differently, so half of the rows that were found by their codes when the index was made
    (`IndexInfo.check_queries_found`) are enough.
    """
    if not check_queries:
        return None
    mentioned = [row_id for query in check_queries for row_id in (query.row_id, *query.ids)]
    named = np.unique(np.array(mentioned, dtype=np.int64))
    if (
        named[0] < 0
        or named[-1] >= len(vectors)
        or any(len(query.ids) != len(query.scores) for query in check_queries)
    ):
        return "the check queries name rows that do not exist"
    rows = vectors.rows(np.array([query.row_id for query in check_queries]))
    selection = None if all_rows else Selection(named)
    hits = index.search(rows, N_HITS, effort=1.0, selection=selection)
    for query, padded_ids, scores in zip(check_queries, hits.ids, hits.scores, strict=True):
        ids = padded_ids[padded_ids >= 0].tolist()
        if ids != query.ids or np.abs(scores[: len(ids)] - query.scores).max() > _SCORE_TOLERANCE:
            return (
                f"row {query.row_id} is nearest to {ids}, not to {query.ids} with the scores "
                "recorded"
            )
    if isinstance(index, IvfIndex):
        n_found = _n_found(check_queries, rows, index)
        if 2 * n_found < index.check_queries_found:
            return (
                f"{n_found} of {len(check_queries)} rows are found by their codes, not "
                f"{index.check_queries_found} as when the index was made"
            )
    return None


def _n_found(check_queries: Sequence[CheckQuery], rows: Vectors, index: IvfIndex) -> int:
    """Return how many check queries' rows are found by their codes."""
    return sum(index.finds(rows[i : i + 1], query.row_id) for i, query in enumerate(check_queries))


def _first_answers(row_ids: Ids, exact: Hits) -> list[CheckQuery]:
    """Return the first measured rows as check queries."""
    check_queries = []
    for row_id, ids, scores in zip(row_ids[:N_QUERIES], exact.ids, exact.scores, strict=False):
        kept = ids[:N_HITS] >= 0
        check_queries.append(
            CheckQuery(int(row_id), ids[:N_HITS][kept].tolist(), scores[:N_HITS][kept].tolist())
        )
    return check_queries
