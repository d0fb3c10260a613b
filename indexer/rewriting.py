"""Write a version again without some of its rows: prompts, vectors, index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imprompt.core.protocols import Progress
from imprompt.core.values import Ids
from imprompt.indexer.build_plan import Plan
from imprompt.indexer.cleaning_stats import KEPT
from imprompt.indexer.journal import Journal, Numbered, ShardDone
from imprompt.indexer.numbering import digest_and_parameters, resumed_numbering
from imprompt.indexer.staging import choose_factory, index_and_publish, open_staging
from imprompt.store import layout
from imprompt.store.index_version import IndexVersion
from imprompt.store.manifest import Manifest
from imprompt.store.prompts_without import Gained, write_without
from imprompt.store.shards import shard_is_whole, write_codes


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
    """Publish a version without some rows of another; the rest is copied and gets new row ids.

    Nothing is encoded. Repeat an interrupted call to resume it.

    Args:
        base: the other version.
        removed: row ids, rising.
        rule: what the funnel counts them under.
        gained: counts that remaining rows take over from removed ones.

    Raises:
        StorageFull: the disk is full or read-only.
        Checksum: the version is damaged.
    """
    staging = open_staging(root, plan)
    with Journal(staging / layout.JOURNAL) as journal:
        numbered = _renumber(
            staging, base, journal, removed, rule=rule, gained=gained, progress=progress
        )
        kept = np.setdiff1d(np.arange(len(base.prompts)), removed, assume_unique=True)
        shards: dict[str, list[ShardDone]] = {space: [] for space in base.manifest.shards}
        with progress.start("Copying vectors", len(kept) * len(plan.encoders)) as task:
            for space, copied in shards.items():
                for shard in _copied_shards(
                    staging, base, journal, space, kept, shard_rows=plan.shard_rows
                ):
                    copied.append(shard)
                    task.advance(shard.record.rows)
    # The journal is closed by now: Windows moves no folder with an open file in it.
    factory = choose_factory(plan, numbered.rows)
    return index_and_publish(
        root,
        staging,
        plan,
        numbered,
        shards,
        factory=factory,
        licence=base.manifest.licence,
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
    if (numbered := resumed_numbering(staging, journal)) is not None:
        return numbered
    with progress.start("Writing the remaining prompts", None):
        write_without(
            base.folder / layout.PROMPTS, staging / layout.PROMPTS, removed, gained=gained
        )
    funnel = base.manifest.funnel
    rows = len(base.prompts) - len(removed)
    digest, parameters = digest_and_parameters(staging)
    numbered = Numbered(
        rows=rows,
        rows_digest=digest,
        funnel={**funnel, rule: funnel.get(rule, 0) + len(removed), KEPT: rows},
        # Not those of the base: what a reason quotes may be what has to disappear.
        rejected=[],
        parameters=parameters,
    )
    journal.append(numbered)
    return numbered


def _copied_shards(
    staging: Path, base: IndexVersion, journal: Journal, space: str, kept: Ids, *, shard_rows: int
) -> Iterator[ShardDone]:
    """Yield the shards of a space in row order; intact ones that the journal lists are kept."""
    listed = journal.shards()
    for number, start in enumerate(range(0, len(kept), shard_rows)):
        shard = listed.get((space, number))
        if shard is None or not shard_is_whole(staging, shard.record):
            shard = _copy_shard(staging, base, space, number, kept[start : start + shard_rows])
            journal.append(shard)
        yield shard


def _copy_shard(
    staging: Path, base: IndexVersion, space: str, number: int, row_ids: Ids
) -> ShardDone:
    records = base.manifest.shards[space]
    starts = np.cumsum([0, *(record.rows for record in records)])
    first, last = np.searchsorted(starts, [row_ids[0], row_ids[-1]], side="right") - 1
    origins = [record.provenance for record in records[first : last + 1]]
    different = [origin for i, origin in enumerate(origins) if origin not in origins[:i]]
    record = write_codes(
        staging,
        layout.shard_file(space, number),
        base.vectors(space).codes_of(row_ids),
        provenance=different[0] if len(different) == 1 else {"copied_from": different},
    )
    return ShardDone(space=space, number=number, truncated=0, record=record)
