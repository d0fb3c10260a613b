"""Where every writer of an index begins and ends: is its plan published already? And: index, measure, publish."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import msgspec

from imprompt.core.atomic_files import atomic_write, storage_errors
from imprompt.core.errors import Checksum, NoIndex
from imprompt.core.protocols import Progress
from imprompt.indexer.build_plan import DEFAULT_SHARD_ROWS, Plan
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.indexer.journal import Numbered, ShardDone
from imprompt.indexer.provenance import imprompt_version
from imprompt.store import layout
from imprompt.store.check_queries import index_space
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import DEFAULT_BUDGET_BYTES, plan_index, read_factory
from imprompt.store.index_version import IndexVersion
from imprompt.store.manifest import FileRecord, Manifest, ShardRecord, manifest_in
from imprompt.store.paths import check_tree, hash_file, open_file
from imprompt.store.publish import find_version, make_current, publish, read_current
from imprompt.store.shards import ShardedVectors, shard_is_whole, write_row_sums

ONLY_EQUAL = Cleaning(contacts=False, unsafe=False, near_duplicates=None)


class _TakenOver(msgspec.Struct):
    """What a manifest's plan says, as far as a later plan takes it over."""

    # Before cleaning had settings, it folded equal prompts and no more.
    cleaning: Cleaning | str | None = None
    shard_rows: Annotated[int, msgspec.Meta(ge=1, le=1 << 32)] = DEFAULT_SHARD_ROWS
    index_factory: str | None = None
    memory_budget_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)] = DEFAULT_BUDGET_BYTES
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0


def manifest_of(root: Path, name: str) -> Manifest:
    """The manifest of a version.

    Raises:
        Checksum: it cannot be read.
        FormatVersion: it was written in a newer format.
    """
    path = layout.version_folder(root, name) / layout.MANIFEST
    try:
        return manifest_in(path.parent)[1]
    except OSError as error:
        raise Checksum(f"{path} cannot be read: {error.strerror}.", path=path) from error


def published(root: Path, plan: Plan, *, progress: Progress) -> Manifest | None:
    """The manifest of a whole version of this plan, which is put in service; None where there is none.

    Every file is hashed: whoever is told to build again because of a damaged file is not to be told
    that there is nothing to do.
    """
    name = find_version(root, plan.sha256)
    in_service = _in_service(root)
    if name is None:
        return None
    manifest = manifest_of(root, name)
    folder = layout.version_folder(root, name)
    if (
        in_service is not None
        and in_service[0] == name
        and in_service[1] != hash_file(folder, layout.MANIFEST)[1]
    ):
        return None
    with progress.start("Checking the index in place", len(manifest.files)) as task:
        for file, record in manifest.files.items():
            if not _is_whole(folder, file, record):
                return None
            task.advance(1)
    make_current(
        root, name
    )  # also where it is in service: a kill may have left files of the build beside it
    return manifest


def _is_whole(folder: Path, file: str, record: FileRecord) -> bool:
    try:
        return hash_file(folder, file) == (record.bytes, record.sha256)
    except (Checksum, OSError):
        return False


def _in_service(root: Path) -> tuple[str, str] | None:
    try:
        return read_current(root)
    except Checksum:
        return None


def begin(root: Path, plan: Plan) -> Path:
    """The staging folder of a plan, with the plan in it; what an earlier attempt left there stays.

    Raises:
        Checksum: there is something in it that no build leaves, such as a link.
        StorageFull: the disk is full or may not be written.
    """
    staging = layout.staging_folder(root, plan.sha256)
    with storage_errors(staging):
        check_tree(staging)  # a build writes into it, and would write behind a link
        staging.mkdir(parents=True, exist_ok=True)
    with atomic_write(staging / layout.PLAN) as file:
        file.write(plan.canonical())
    return staging


def plan_of(base: Manifest) -> Plan:
    """What a plan takes over from the version that it goes on from.

    Raises:
        Checksum: its plan has a value that no plan has.
        ConfigError: its kind of index is not known.
    """
    try:
        taken = msgspec.convert(base.plan, _TakenOver)
    except msgspec.ValidationError as error:
        path = Path(layout.MANIFEST)
        raise Checksum(
            f"The plan in {path} of {base.version} is none: {error}.",
            path=path,
            hint="Build it again.",
        ) from error
    if taken.index_factory is not None:
        read_factory(taken.index_factory, dim=base.encoders[0].dim)
    return Plan(
        corpora=base.corpus,
        cleaning=taken.cleaning if isinstance(taken.cleaning, Cleaning) else ONLY_EQUAL,
        encoders=base.encoders,
        shard_rows=taken.shard_rows,
        index_factory=taken.index_factory,
        memory_budget_bytes=taken.memory_budget_bytes,
        seed=taken.seed,
    )


def going_on_from(root: Path, base: Manifest) -> dict[str, Any]:
    """The fields of a plan that takes over everything from the version in service, and the hash of that one's manifest.

    Raises:
        NoIndex: there is no index.
    """
    current = read_current(root)
    if current is None:
        raise NoIndex(f"There is no index in {root}.")
    return msgspec.structs.asdict(plan_of(base)) | {"base_sha256": current[1]}


def link_shards(
    staging: Path, base: IndexVersion, *, progress: Progress
) -> dict[str, list[ShardDone]]:
    """Give the shards of a version a place in a staging folder: a second name of the same file, or a copy where that cannot be.

    Raises:
        Checksum: a shard is not what its record says.
        StorageFull: the disk is full or may not be written.
    """
    linked: dict[str, list[ShardDone]] = {}
    with (
        progress.start(
            "Taking over vectors", base.manifest.rows * len(base.manifest.shards)
        ) as task,
        storage_errors(staging),
    ):
        for space, records in base.manifest.shards.items():
            linked[space] = [
                ShardDone(space=space, number=number, truncated=0, record=record)
                for number, record in enumerate(records)
            ]
            for record in records:
                (staging / record.file).parent.mkdir(parents=True, exist_ok=True)
                if not shard_is_whole(staging, record):
                    _link(base.folder, staging, record)
                task.advance(record.rows)
    return linked


def _link(folder: Path, staging: Path, record: ShardRecord) -> None:
    """Nothing is removed or linked before the source was hashed, and what is linked is what was hashed."""
    source, target = folder / record.file, staging / record.file
    if not shard_is_whole(folder, record):
        raise Checksum(
            f"{source} is not what was published.", path=source, hint="Run `python cli.py verify`."
        )
    target.unlink(missing_ok=True)
    with os.fdopen(open_file(folder, record.file), "rb") as opened:
        try:
            target.hardlink_to(source)
        except OSError:  # another file system, or one that has no second names
            with target.open("xb") as copy:
                shutil.copyfileobj(opened, copy)
        if not shard_is_whole(staging, record):
            raise Checksum(
                f"{source} was changed while it was read.",
                path=source,
                hint="Run `python cli.py verify`.",
            )


def factory_for(plan: Plan, rows: int) -> str:
    """FAISS's factory string for so many rows.

    Raises:
        ConfigError: no index fits into the plan's memory.
    """
    if plan.index_factory is not None:
        return plan.index_factory
    dim = plan.encoders[0].dim
    return plan_index(
        rows=rows, dim=dim, budget_bytes=plan.memory_budget_bytes, spaces=len(plan.encoders)
    ).factory


def finish(
    root: Path,
    staging: Path,
    plan: Plan,
    numbered: Numbered,
    shards: dict[str, list[ShardDone]],
    *,
    factory: str,
    gpu: Gpu | None = None,
    progress: Progress,
) -> Manifest:
    """Index the first space, on the `gpu` where there is one, measure it, and publish; see `imprompt.store.publish.publish`."""
    space = plan.encoders[0].space
    records = {name: [shard.record for shard in done] for name, done in shards.items()}
    for name, written in records.items():
        write_row_sums(staging, layout.row_sums_file(name), ShardedVectors(staging, written))
    info, check_queries = index_space(
        staging, space, records[space], factory=factory, seed=plan.seed, gpu=gpu, progress=progress
    )
    manifest = Manifest(
        imprompt=imprompt_version(),
        plan_sha256=plan.sha256,
        plan=plan.plain(),
        rows=numbered.rows,
        rows_digest=numbered.rows_digest,
        corpus=plan.corpora,
        funnel=numbered.funnel,
        encoders=plan.encoders,
        shards=records,
        indexes={space: info},
        check_queries={space: check_queries},
        row_sums={name: layout.row_sums_file(name) for name in records},
    )
    return publish(root, staging, manifest, progress=progress)
