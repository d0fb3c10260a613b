"""Prompts of like meaning folded into one: a pass over a finished index, through an inverted file, never all against all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError, NoIndex
from imprompt.core.progress import Silent
from imprompt.core.protocols import Progress, VectorIndex
from imprompt.core.values import Ids
from imprompt.indexer.build_plan import DedupePlan
from imprompt.indexer.cleaning_stats import SEMANTIC_DUPLICATE
from imprompt.indexer.completion import begin, going_on_from, published
from imprompt.indexer.rewriting import rewrite
from imprompt.store.compact_shards import Gained
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_plan import number_of_lists, short_codes
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.indexes import build_index_file, open_index
from imprompt.store.ivf.ivf_index import effort_of
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest
from imprompt.store.ranking import CAPS
from imprompt.store.shards import ShardedVectors

LEAST_COSINE = 0.5
_FEW_ROWS = 4_096
_LISTS = 12
"""Lists that are looked into: rows so much alike lie in the same list or in one beside it."""
_NEIGHBOURS = 32
_BLOCK_ROWS = 1_024
_SCRATCH = "likeness.faiss"
_SILENT = Silent()


@dataclass(frozen=True, slots=True)
class DedupeReport:
    """What a pass did: the version in service, and how many prompts were folded into others by this call."""

    manifest: Manifest
    folded: int


def dedupe_similar(root: Path, *, cosine: float, progress: Progress = _SILENT) -> DedupeReport:
    """Publish the index with one of each group of prompts whose vectors have a cosine of at least `cosine` in its space.

    Prompts are looked at by most submissions, then by first row. One is folded into the nearest
    *kept* prompt that reaches the cosine; where there is none, it is kept. The kept one takes over
    its submissions and counts it in `n_duplicates`. Vectors are copied, never encoded; the older
    version stays until `gc`. A call that was broken off is gone on with by the same one.

    Raises:
        ConfigError: `cosine` is not from .5 to 1.
        NoIndex: there is no index.
        BuildLocked: another process is writing it.
        Checksum: the index is damaged.
        StorageFull: the disk is full or may not be written.
    """
    if not LEAST_COSINE <= cosine <= 1:
        raise ConfigError(
            f"The cosine {cosine} cannot be used.",
            hint=f"It is from {LEAST_COSINE} to 1; .95 is nearly the same.",
        )
    if not root.is_dir():
        raise NoIndex(f"There is no index in {root}.", hint="Build one: python cli.py build-index")
    with write_lock(root), open_version(root) as base:
        plan = DedupePlan(**going_on_from(root, base.manifest), cosine=cosine)
        there = published(root, plan, progress=progress)
        if (
            there is not None or base.manifest.plan.get("cosine") == cosine
        ):  # done already, to this very index
            return DedupeReport(there or base.manifest, 0)
        stands_for = _stands_for(root, base, plan, progress=progress)
        removed = np.flatnonzero(stands_for != np.arange(len(stands_for)))
        if not len(removed):
            return DedupeReport(base.manifest, 0)
        gained = _gained(base, removed, stands_for)
        manifest = rewrite(
            root, base, plan, removed, rule=SEMANTIC_DUPLICATE, gained=gained, progress=progress
        )
        return DedupeReport(manifest, len(removed))


def keep_one(
    n_submitted: Ids, neighbours: list[tuple[Ids, NDArray[np.float32]]], *, cosine: float
) -> Ids:
    """(n,) for each row the row that stands for it: itself where it is kept.

    Args:
        n_submitted: (n,) submissions of each row.
        neighbours: for each row, row ids near to it (itself may be among them) and their cosines,
            falling.
        cosine: from which on two rows are alike.
    """
    stands_for = np.arange(len(n_submitted))
    kept = np.zeros(len(n_submitted), dtype=np.bool_)
    for row in np.lexsort((stands_for, -n_submitted)).tolist():
        ids, scores = neighbours[row]
        near = ids[(scores >= cosine) & kept[ids]]
        if len(near):
            stands_for[row] = near[0]
        else:
            kept[row] = True
    return stands_for


def _stands_for(root: Path, base: IndexVersion, plan: DedupePlan, *, progress: Progress) -> Ids:
    staging = begin(root, plan)
    vectors = base.vectors(base.space)
    index, effort = _scratch_index(staging, vectors, seed=plan.seed, progress=progress)
    found: list[tuple[Ids, NDArray[np.float32]]] = []
    n_submitted: list[int] = []
    nobody = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    with progress.start("Looking for like prompts", len(vectors)) as task:
        for start, block in vectors.blocks(_BLOCK_ROWS):
            for row, (ids, scores) in enumerate(
                _near(index, block, cosine=plan.cosine, effort=effort), start
            ):
                others = ids != row
                found.append((ids[others], scores[others]) if others.any() else nobody)
            n_submitted += [
                prompt.n_submitted
                for prompt in base.prompts.get_many(range(start, start + len(block)))
            ]
            task.advance(len(block))
    for path in staging.glob(f"{Path(_SCRATCH).stem}*"):
        path.unlink(missing_ok=True)
    return keep_one(np.array(n_submitted, dtype=np.int64), found, cosine=plan.cosine)


def _scratch_index(
    staging: Path, vectors: ShardedVectors, *, seed: int, progress: Progress
) -> tuple[VectorIndex, float]:
    if len(vectors) <= _FEW_ROWS:
        return ExactIndex(vectors), 1.0
    n_lists = number_of_lists(len(vectors))
    info = build_index_file(
        staging,
        _SCRATCH,
        vectors,
        factory=f"IVF{n_lists},{short_codes(vectors.dim)}",
        seed=seed,
        progress=progress,
    )
    return open_index(staging, info, vectors), effort_of(min(_LISTS, n_lists), n_lists)


def _near(
    index: VectorIndex, block: NDArray[np.float32], *, cosine: float, effort: float
) -> Iterator[tuple[Ids, NDArray[np.float32]]]:
    """What each row has nearest to it, as far as it reaches the cosine; more is asked for where all of the first do."""
    hits = index.search(block, min(_NEIGHBOURS, len(index)), effort=effort)
    for i, (ids, scores) in enumerate(zip(hits.ids, hits.scores, strict=True)):
        if scores[-1] >= cosine and len(index) > _NEIGHBOURS:
            more = index.search(block[i : i + 1], min(CAPS.max_k, len(index)), effort=effort)
            ids, scores = more.ids[0], more.scores[0]
        yield ids[scores >= cosine], scores[scores >= cosine]


def _gained(base: IndexVersion, removed: Ids, stands_for: Ids) -> Gained:
    folded = base.prompts.get_many(removed)
    rows, place = np.unique(stands_for[removed], return_inverse=True)
    n_submitted, n_duplicates = (
        np.zeros(len(rows), dtype=np.int64),
        np.zeros(len(rows), dtype=np.int64),
    )
    np.add.at(n_submitted, place, [prompt.n_submitted for prompt in folded])
    np.add.at(n_duplicates, place, [prompt.n_duplicates + 1 for prompt in folded])
    return Gained(rows, n_submitted, n_duplicates)
