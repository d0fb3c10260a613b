"""A version written afresh without some of its rows: prompts, vectors, index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imprompt.core.protocols import Progress
from imprompt.core.values import Ids
from imprompt.indexer.build_plan import Plan
from imprompt.indexer.cleaning_stats import KEPT
from imprompt.indexer.journal import Journal, Numbered, ShardDone
from imprompt.indexer.numbering import holds_rows, prompts_digest
from imprompt.indexer.staging import begin, factory_for, finish
from imprompt.store import layout
from imprompt.store.compact_shards import Gained, write_without
from imprompt.store.index_version import IndexVersion
from imprompt.store.manifest import Manifest
from imprompt.store.shards import ShardedVectors, shard_is_whole, write_codes


def rewrite(
    root: Path,
    base: IndexVersion,
    plan: Plan,
    removed: Ids,
    *,
    rule: str,
    gained: Gained | None = None,
    progress: Progress,
) -> Manifest:
    """Publish a version without some rows of another one: what stays is copied, numbered anew, and nothing is encoded.

    A call that was broken off is gone on with by the same one.

    Args:
        base: the other version.
        removed: row ids, rising.
        rule: under which they are counted in the funnel.
        gained: what rows that stay take over from those that go.

    Raises:
        StorageFull: the disk is full or may not be written.
        Checksum: the version is damaged.
    """
    staging = begin(root, plan)
    with Journal(staging / layout.JOURNAL) as journal:
        numbered = _renumber(
            staging, base, journal, removed, rule=rule, gained=gained, progress=progress
        )
        kept = np.setdiff1d(np.arange(len(base.prompts)), removed, assume_unique=True)
        with progress.start("Copying vectors", len(kept) * len(plan.encoders)) as task:
            shards: dict[str, list[ShardDone]] = {}
            for space in base.manifest.shards:
                shards[space] = []
                for done in _copied_shards(
                    staging, base, journal, space, kept, shard_rows=plan.shard_rows
                ):
                    shards[space].append(done)
                    task.advance(done.record.rows)
        return finish(
            root,
            staging,
            plan,
            numbered,
            shards,
            factory=factory_for(plan, numbered.rows),
            progress=progress,
        )


def _renumber(
    staging: Path,
    base: IndexVersion,
    journal: Journal,
    removed: Ids,
    *,
    rule: str,
    gained: Gained | None,
    progress: Progress,
) -> Numbered:
    done = journal.numbered()
    if done is not None and holds_rows(staging, done):
        return done
    (staging / layout.PROMPTS).unlink(missing_ok=True)
    with progress.start("Writing the prompts that stay", None):
        write_without(
            base.folder / layout.PROMPTS, staging / layout.PROMPTS, removed, gained=gained
        )
    funnel = dict(base.manifest.funnel)
    funnel[rule] = funnel.get(rule, 0) + len(removed)
    rows = len(base.prompts) - len(removed)
    # The rejected rows of the build are left behind: what a reason quotes may be what is to be
    # gone.
    entry = Numbered(
        rows=rows, rows_digest=prompts_digest(staging), funnel={**funnel, KEPT: rows}, rejected=[]
    )
    journal.append(entry)
    return entry


def _copied_shards(
    staging: Path, base: IndexVersion, journal: Journal, space: str, kept: Ids, *, shard_rows: int
) -> Iterator[ShardDone]:
    """The shards of one space in row order; those that the journal lists and that are whole are not copied again."""
    listed = journal.shards()
    vectors = base.vectors(space)
    starts = np.cumsum([0, *(record.rows for record in base.manifest.shards[space])])
    for number, start in enumerate(range(0, len(kept), shard_rows)):
        done = listed.get((space, number))
        if done is None or not shard_is_whole(staging, done.record):
            row_ids = kept[start : start + shard_rows]
            first, last = np.searchsorted(starts, [row_ids[0], row_ids[-1]], side="right") - 1
            made = [record.provenance for record in base.manifest.shards[space][first : last + 1]]
            done = _copy_shard(staging, vectors, space, number, row_ids, made)
            journal.append(done)
        yield done


def _copy_shard(
    staging: Path,
    vectors: ShardedVectors,
    space: str,
    number: int,
    row_ids: Ids,
    made: Sequence[dict[str, Any]],
) -> ShardDone:
    different = [provenance for i, provenance in enumerate(made) if provenance not in made[:i]]
    provenance = different[0] if len(different) == 1 else {"copied_from": different}
    record = write_codes(
        staging, layout.shard_file(space, number), vectors.codes_of(row_ids), provenance=provenance
    )
    return ShardDone(space=space, number=number, truncated=0, record=record)
