"""Vectors that need not be in a pack, because they follow from others: MiniLM's from `lite`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from imprompt.core.errors import WeightsRejected
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.values import EncoderSpec
from imprompt.encoders.lite import lite_space, minilm_rows, prompt_mean
from imprompt.encoders.minilm import DIM, SPACE
from imprompt.store import layout
from imprompt.store.manifest import Manifest, ShardRecord, sha256_bytes
from imprompt.store.packs.int8_vectors import QUANTIZED
from imprompt.store.packs.pack_record import PackRecord, canonical_plan, plan_encoders
from imprompt.store.shards import ShardedVectors, write_row_sums, write_shard


def derivable(record: PackRecord) -> EncoderSpec | None:
    """Return MiniLM's encoder if its vectors were left out and follow from the searched ones.

    They do where the head of `lite` here makes the same space, which names the mean that the head
    has taken from MiniLM's vectors.
    """
    searched = record.manifest.encoders[0]
    found = (spec for spec in record.left_out if (spec.space, spec.dim) == (SPACE, DIM))
    try:
        same = (searched.space, searched.dim) == (lite_space(), DIM)
    except WeightsRejected:
        return None
    return next(found, None) if same else None


def with_derived(
    record: PackRecord, staging: Path, *, progress: Progress = SILENT
) -> tuple[Manifest, bool]:
    """Write vectors that follow from those in a staging folder.

    They agree with the ones that were left out to 1e-3, as those of another machine do.

    Returns:
        The manifest with them, and whether there were any.

    Raises:
        Checksum: the vectors that they follow from are damaged.
        StorageFull: the disk is full or may not be written.
    """
    manifest, spec = record.manifest, derivable(record)
    if spec is None:
        return manifest, False
    searched = manifest.encoders[0].space
    vectors = ShardedVectors(staging, manifest.shards[searched])
    mean, start = prompt_mean(), 0
    shards: list[ShardRecord] = []
    with progress.start("Computing MiniLM's vectors", manifest.rows) as task:
        for number, shard in enumerate(manifest.shards[searched]):
            rows = minilm_rows(vectors.block(start, start + shard.rows), mean)
            file = layout.shard_file(SPACE, number)
            provenance: dict[str, Any] = {"derived_from": searched}
            if QUANTIZED in shard.provenance:
                provenance[QUANTIZED] = shard.provenance[QUANTIZED]
            shards.append(write_shard(staging, file, rows, provenance=provenance))
            start += shard.rows
            task.advance(shard.rows)
    sums = layout.row_sums_file(SPACE)
    write_row_sums(staging, sums, ShardedVectors(staging, shards))
    plan = {**manifest.plan}
    if encoders := plan_encoders(plan):
        plan["encoders"] = [encoders[0], msgspec.to_builtins(spec), *encoders[1:]]
    derived = msgspec.structs.replace(
        manifest,
        plan=plan,
        plan_sha256=sha256_bytes(canonical_plan(plan)),
        encoders=[manifest.encoders[0], spec, *manifest.encoders[1:]],
        shards={**manifest.shards, SPACE: shards},
        row_sums={**manifest.row_sums, SPACE: sums},
    )
    return derived, True
