"""Drop prompts of similar meaning from a finished index.

Neighbours are searched with an inverted file, so the pass never compares all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, VectorIndex
from imprompt.core.values import Ids
from imprompt.indexer.build_plan import DedupePlan, inherited_fields
from imprompt.indexer.cleaning_stats import SEMANTIC_DUPLICATE
from imprompt.indexer.rewriting import rewrite
from imprompt.indexer.staging import find_published, open_staging, require_index
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_plan import number_of_lists, short_codes
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.indexes import build_index_file, open_index
from imprompt.store.ivf.ivf_index import effort_of
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest
from imprompt.store.prompts_without import Gained
from imprompt.store.ranking import CAPS
from imprompt.store.shards import ShardedVectors

LEAST_COSINE = 0.5
_FEW_ROWS = 4_096
_LISTS = 12
"""Inverted lists visited for each row: rows this similar lie in the same list or a near one."""
_NEIGHBOURS = 32
_BLOCK_ROWS = 1_024
_SCRATCH = "likeness.faiss"


@dataclass(frozen=True, slots=True)
class DedupeReport:
    """The version in service, and the duplicates that this call dropped."""

    manifest: Manifest
    duplicates: int


def dedupe_similar(root: Path, *, cosine: float, progress: Progress = SILENT) -> DedupeReport:
    """Publish the index without prompts that are similar to another one, by cosine in its space.

    Prompts are visited by most submissions, then by first row. One is dropped in favour of the
    nearest *kept* prompt that reaches the cosine, which takes over its submissions and counts it in
    `n_duplicates`; if there is none, it is kept. Vectors are copied, not encoded; the older version
    stays until `gc`. Repeat an interrupted call to resume it.

    Raises:
        ConfigError: `cosine` is not between .5 and 1.
        NoIndex: there is no index.
        BuildLocked: another process is writing it.
        Checksum: the index is damaged.
        StorageFull: the disk is full or read-only.
    """
    if not LEAST_COSINE <= cosine <= 1:
        raise ConfigError(
            f"--cosine {cosine:g} is out of range.",
            hint=f"It is {LEAST_COSINE} to 1; at .95 prompts are nearly the same.",
        )
    require_index(root)
    with write_lock(root), open_version(root) as base:
        plan = DedupePlan(**inherited_fields(base), cosine=cosine)
        manifest = find_published(root, plan, progress=progress)
        if manifest is not None:
            return DedupeReport(manifest, 0)
        if base.manifest.plan.get("cosine") == cosine:  # the base is the result of this very call
            return DedupeReport(base.manifest, 0)
        kept_by = _kept_by(root, base, plan, progress=progress)
        dropped = np.flatnonzero(kept_by != np.arange(len(kept_by)))
        if not len(dropped):
            return DedupeReport(base.manifest, 0)
        gained = _gained(base, dropped, kept_by)
        manifest = rewrite(
            root, base, plan, dropped, rule=SEMANTIC_DUPLICATE, gained=gained, progress=progress
        )
        return DedupeReport(manifest, len(dropped))


def keep_one(
    n_submitted: Ids, neighbours: list[tuple[Ids, NDArray[np.float32]]], *, cosine: float
) -> Ids:
    """Return (n,) for each row the row that is kept for it: itself if it is kept.

    Args:
        n_submitted: (n,) submissions of each row.
        neighbours: for each row the ids of rows near it (itself may be among them) and their
            cosines, falling.
        cosine: the minimum at which two rows count as duplicates.
    """
    kept_by = np.arange(len(n_submitted))
    kept = np.zeros(len(n_submitted), dtype=np.bool_)
    for row in np.lexsort((kept_by, -n_submitted)).tolist():
        ids, scores = neighbours[row]
        near = ids[(scores >= cosine) & kept[ids]]
        if len(near):
            kept_by[row] = near[0]
        else:
            kept[row] = True
    return kept_by


def _kept_by(root: Path, base: IndexVersion, plan: DedupePlan, *, progress: Progress) -> Ids:
    staging = open_staging(root, plan)
    vectors = base.vectors(base.space)
    index, effort = _scratch_index(staging, vectors, seed=plan.seed, progress=progress)
    neighbours: list[tuple[Ids, NDArray[np.float32]]] = []
    n_submitted: list[int] = []
    none = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)  # one for all such rows
    with progress.start("Looking for similar prompts", len(vectors)) as task:
        for start, block in vectors.blocks(_BLOCK_ROWS):
            for row, (ids, scores) in enumerate(
                _near(index, block, cosine=plan.cosine, effort=effort), start
            ):
                others = ids != row
                neighbours.append((ids[others], scores[others]) if others.any() else none)
            n_submitted += [
                prompt.n_submitted
                for prompt in base.prompts.get_many(range(start, start + len(block)))
            ]
            task.advance(len(block))
    for path in staging.glob(f"{Path(_SCRATCH).stem}*"):
        path.unlink(missing_ok=True)
    return keep_one(np.array(n_submitted, dtype=np.int64), neighbours, cosine=plan.cosine)


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
    """Yield each row's neighbours that reach the cosine; a full first page is searched deeper."""
    hits = index.search(block, min(_NEIGHBOURS, len(index)), effort=effort)
    for i, (ids, scores) in enumerate(zip(hits.ids, hits.scores, strict=True)):
        if scores[-1] >= cosine and len(index) > _NEIGHBOURS:
            more = index.search(block[i : i + 1], min(CAPS.max_k, len(index)), effort=effort)
            ids, scores = more.ids[0], more.scores[0]
        yield ids[scores >= cosine], scores[scores >= cosine]


def _gained(base: IndexVersion, dropped: Ids, kept_by: Ids) -> Gained:
    prompts = base.prompts.get_many(dropped)
    rows, positions = np.unique(kept_by[dropped], return_inverse=True)
    n_submitted = np.zeros(len(rows), dtype=np.int64)
    n_duplicates = np.zeros(len(rows), dtype=np.int64)
    np.add.at(n_submitted, positions, [prompt.n_submitted for prompt in prompts])
    np.add.at(n_duplicates, positions, [prompt.n_duplicates + 1 for prompt in prompts])
    return Gained(rows, n_submitted, n_duplicates)
