"""A version whose vectors are rounded to int8, made beside the one that is packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from imprompt.core.errors import Checksum
from imprompt.core.protocols import Progress
from imprompt.store.check_queries import index_space
from imprompt.store.index_version import IndexVersion
from imprompt.store.layout import VERIFY
from imprompt.store.manifest import Manifest, ShardRecord, sha256_bytes
from imprompt.store.packs.int8_vectors import (
    QUANTIZED,
    Rounding,
    int8_file,
    measured_rounding,
    quantized,
    restored,
    rounding_of,
)
from imprompt.store.packs.pack_record import canonical_plan, int8_member
from imprompt.store.paths import has_content
from imprompt.store.shards import ShardedVectors, write_codes


def rounded_manifest(
    version: IndexVersion, manifest: Manifest, folder: Path, *, progress: Progress
) -> Manifest:
    """Write the rounded vectors of a version and their index into a folder.

    What rounding costs is measured and stands in the provenance of the shards, unless they were
    rounded before: then nothing changes.

    Args:
        manifest: of the pack, with the spaces that it holds.

    Returns:
        The manifest with the shards that `install` restores.

    Raises:
        Checksum: a shard is damaged.
        StorageFull: the disk is full or may not be written.
    """
    shards = {}
    for space, records in manifest.shards.items():
        before, start = version.vectors(space), 0
        written = []
        with progress.start(f"Rounding the vectors of {space}", manifest.rows) as task:
            for record in records:
                _check(version.folder, record)
                rows = restored(quantized(before.codes(start, start + record.rows)))
                written.append(write_codes(folder, record.file, rows, provenance=record.provenance))
                start += record.rows
                task.advance(record.rows)
            cost = measured_rounding(before, ShardedVectors(folder, written), seed=0)
        shards[space] = [_noted(record, cost) for record in written]
    plan = {**manifest.plan, QUANTIZED: "int8"}
    seed = plan.get("seed", 0)
    indexes, check_queries = {}, {}
    for space, info in manifest.indexes.items():
        indexes[space], check_queries[space] = index_space(
            folder,
            space,
            shards[space],
            factory=info.factory,
            seed=seed if isinstance(seed, int) else 0,
            progress=progress,
        )
    return msgspec.structs.replace(
        manifest,
        shards=shards,
        indexes=indexes,
        check_queries=check_queries,
        plan=plan,
        plan_sha256=sha256_bytes(canonical_plan(plan)),
    )


def int8_places(manifest: Manifest) -> dict[str, tuple[str, int, int]]:
    """Return (space, first row, row after the last) of every member that holds vectors as int8."""
    places = {}
    for space, records in manifest.shards.items():
        start = 0
        for record in records:
            places[int8_member(record.file)] = space, start, start + record.rows
            start += record.rows
    return places


def int8_content(version: IndexVersion, place: tuple[str, int, int]) -> bytes:
    """Return the bytes of such a member.

    Raises:
        Checksum: a row is not what was written.
    """
    space, start, stop = place
    return int8_file(version.vectors(space).codes(start, stop))


def _check(folder: Path, record: ShardRecord) -> None:
    if not has_content(folder, record.file, size=record.bytes, sha256=record.sha256):
        path = folder / record.file
        raise Checksum(f"{path} has changed since it was published.", path=path, hint=VERIFY)


def _noted(record: ShardRecord, cost: Rounding) -> ShardRecord:
    if rounding_of([record]) is not None:
        return record
    provenance: dict[str, Any] = {**record.provenance, QUANTIZED: msgspec.to_builtins(cost)}
    return msgspec.structs.replace(record, provenance=provenance)
