"""Make the index of a version anew from its stored vectors; nothing is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imprompt.core.atomic_files import storage_errors
from imprompt.core.errors import Checksum
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.indexer.build_plan import ReindexPlan, inherited_fields, plan_of
from imprompt.indexer.journal import Numbered
from imprompt.indexer.staging import (
    choose_factory,
    find_published,
    index_and_publish,
    link_file,
    link_shards,
    open_staging,
    require_index,
)
from imprompt.store import layout
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import read_factory
from imprompt.store.index_version import UnopenedVersion, pin_version
from imprompt.store.layout import REBUILD
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest
from imprompt.store.paths import has_content
from imprompt.store.prompts import DuckPrompts


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """The version in service, and whether its index had to be made (else nothing was done)."""

    manifest: Manifest
    built: bool


def reindex(
    root: Path,
    *,
    index_factory: str | None = None,
    memory_budget_bytes: int | None = None,
    gpu: Gpu | None = None,
    progress: Progress = SILENT,
) -> ReindexReport:
    """Publish the version in service with another index: the same rows, prompts and vectors.

    Index files, sums and check queries may be damaged or missing: they are made from the prompts
    and vectors, which are hashed first. Nothing is done where the index is whole, of the wanted
    type and by the wanted settings. The old version answers until the new one is complete, and
    stays until `gc`. Repeat an interrupted call to resume it.

    Args:
        index_factory: FAISS's factory string; None lets the budget decide, or without one keeps
            the settings that the index was made by.
        memory_budget_bytes: of the index from now on; None keeps the one it was built with.
        gpu: makes the index; None makes it on the CPU.

    Raises:
        NoIndex: there is no index.
        ConfigError: the factory string is unknown, or no index fits into the memory budget.
        Checksum: manifest, prompts or vectors are damaged.
        BuildLocked: another process is writing the index.
        StorageFull: the disk is full or read-only.
    """
    require_index(root)
    with write_lock(root), pin_version(root) as base:
        plan = _plan(base, index_factory, memory_budget_bytes)
        factory = choose_factory(plan, base.manifest.rows)
        if _is_wanted(base, plan, factory):
            return ReindexReport(base.manifest, built=False)
        manifest = find_published(root, plan, progress=progress)
        if manifest is None:
            manifest = _publish(root, base, plan, factory, gpu=gpu, progress=progress)
        return ReindexReport(manifest, built=True)


def _plan(
    base: UnopenedVersion, index_factory: str | None, memory_budget_bytes: int | None
) -> ReindexPlan:
    fields = inherited_fields(base)
    if index_factory is not None:
        read_factory(index_factory, dim=base.manifest.encoders[0].dim)
    if (index_factory, memory_budget_bytes) != (None, None):
        fields["index_factory"] = index_factory
    if memory_budget_bytes is not None:
        fields["memory_budget_bytes"] = memory_budget_bytes
    return ReindexPlan(**fields)


def _is_wanted(base: UnopenedVersion, plan: ReindexPlan, factory: str) -> bool:
    """Return whether the base's index is the one that the plan would make, to the byte."""
    manifest, built = base.manifest, plan_of(base.manifest)
    info = manifest.indexes.get(manifest.encoders[0].space)
    if info is None or info.factory != factory:
        return False
    if (built.index_factory, built.memory_budget_bytes) != (
        plan.index_factory,
        plan.memory_budget_bytes,
    ):
        return False
    kept = {
        layout.PROMPTS,
        *(shard.file for shards in manifest.shards.values() for shard in shards),
    }
    return all(
        has_content(base.folder, file, size=record.bytes, sha256=record.sha256)
        for file, record in manifest.files.items()
        if file not in kept
    )


def _publish(
    root: Path,
    base: UnopenedVersion,
    plan: ReindexPlan,
    factory: str,
    *,
    gpu: Gpu | None,
    progress: Progress,
) -> Manifest:
    staging = open_staging(root, plan)
    shards = link_shards(staging, base, progress=progress)
    return index_and_publish(
        root,
        staging,
        plan,
        _linked_prompts(staging, base),
        shards,
        factory=factory,
        licence=base.manifest.licence,
        gpu=gpu,
        progress=progress,
    )


def _linked_prompts(staging: Path, base: UnopenedVersion) -> Numbered:
    """Link the prompts into a staging folder and return their record.

    Raises:
        Checksum: they are damaged, or are not what the manifest says.
    """
    manifest, path = base.manifest, base.folder / layout.PROMPTS
    record = manifest.files.get(layout.PROMPTS)
    if record is None:
        raise Checksum(f"The manifest of {base.folder} lists no prompts.", path=path, hint=REBUILD)
    with storage_errors(staging):
        link_file(base.folder, staging, layout.PROMPTS, record)
    with DuckPrompts(staging / layout.PROMPTS, thorough=True) as prompts:
        found = (len(prompts), prompts.digest(), prompts.n_parameters)
    if found != (manifest.rows, manifest.rows_digest, manifest.parameters):
        raise Checksum(
            f"{path} does not hold the {manifest.rows:,} rows that its manifest lists.",
            path=path,
            hint=REBUILD,
        )
    return Numbered(
        rows=manifest.rows,
        rows_digest=manifest.rows_digest,
        funnel=manifest.funnel,
        rejected=[],
        parameters=manifest.parameters,
    )
