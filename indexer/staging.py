"""The staging folder of a build: opened, given the vectors of a base version, indexed, published.

Every writer of an index starts here, by looking for a published version of its plan, and ends here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from imprompt.core.atomic_files import atomic_write, storage_errors
from imprompt.core.errors import Checksum, NoIndex
from imprompt.core.protocols import Progress
from imprompt.indexer.build_plan import Plan
from imprompt.indexer.journal import Numbered, ShardDone
from imprompt.indexer.provenance import imprompt_version
from imprompt.store import layout
from imprompt.store.check_queries import index_space
from imprompt.store.faiss_import import has_inverted_files, require_inverted_files
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import FLAT, SCANNED_ROWS, index_bytes, plan_index, read_factory
from imprompt.store.index_version import VersionFiles
from imprompt.store.manifest import FileRecord, Manifest, ShardRecord, manifest_in
from imprompt.store.paths import check_tree, has_content, hash_file, open_file
from imprompt.store.publish import (
    current_name,
    find_version,
    make_current,
    publish,
    read_current,
    refuse_older_format,
)
from imprompt.store.shards import ShardedVectors, write_row_sums

_VERIFY = "Run `imprompt verify`."


def require_index(root: Path) -> None:
    """Raise `NoIndex` where there is no folder, before a write lock would create it."""
    if not root.is_dir():
        raise NoIndex(
            f"There is no index in {root}.", hint=f"Build one: imprompt build-index --index {root}"
        )


def manifest_of(root: Path, name: str) -> Manifest:
    """Return the manifest of a version.

    Raises:
        Checksum: it cannot be read.
        FormatVersion: it was written in a newer format.
    """
    path = layout.version_folder(root, name) / layout.MANIFEST
    try:
        return manifest_in(path.parent)[1]
    except OSError as error:
        raise Checksum(f"{path} cannot be read: {error.strerror}.", path=path) from error


def manifest_in_service(root: Path) -> Manifest | None:
    """Return the manifest in service; None where there is none, or a damaged one.

    Raises:
        FormatVersion: it is in another format.
    """
    try:
        name = current_name(root)
        if name is None:
            return None
        refuse_older_format(root, name)
        return manifest_of(root, name)
    except Checksum:
        return None


def find_published(root: Path, plan: Plan, *, progress: Progress) -> Manifest | None:
    """Put a version of this plan in service and return its manifest; None without an intact one.

    Every file is hashed, so that a damaged index is rebuilt rather than reported as up to date.
    """
    name = find_version(root, plan.sha256)
    return None if name is None else put_in_service(root, name, progress=progress)


def put_in_service(root: Path, name: str, *, progress: Progress) -> Manifest | None:
    """Put a version in service and return its manifest; None if it is not intact."""
    manifest = manifest_of(root, name)
    folder = layout.version_folder(root, name)
    current = _read_current_or_none(root)
    if (
        current is not None
        and current[0] == name
        and current[1] != hash_file(folder, layout.MANIFEST)[1]
    ):
        return None
    with progress.start("Checking the existing index", len(manifest.files)) as task:
        for file, record in manifest.files.items():
            if not has_content(folder, file, size=record.bytes, sha256=record.sha256):
                return None
            task.advance(1)
    # Needed even if it is in service: a kill may have left files of the build next to it.
    make_current(root, name)
    return manifest


def _read_current_or_none(root: Path) -> tuple[str, str] | None:
    try:
        return read_current(root)
    except Checksum:
        return None


def open_staging(root: Path, plan: Plan) -> Path:
    """Return the staging folder of a plan, with the plan and an earlier attempt's files in it.

    Raises:
        Checksum: it holds something that no build leaves, such as a link.
        StorageFull: the disk is full or read-only.
    """
    staging = layout.staging_folder(root, plan.sha256)
    with storage_errors(staging):
        check_tree(staging)  # a build would write through a link
        staging.mkdir(parents=True, exist_ok=True)
    with atomic_write(staging / layout.PLAN) as file:
        file.write(plan.canonical())
    return staging


def link_shards(
    staging: Path, base: VersionFiles, *, progress: Progress
) -> dict[str, list[ShardDone]]:
    """Hard-link the shards of a version into a staging folder, or copy where links cannot be made.

    Raises:
        Checksum: a shard differs from its record.
        StorageFull: the disk is full or read-only.
    """
    linked: dict[str, list[ShardDone]] = {}
    total = base.manifest.rows * len(base.manifest.shards)
    with progress.start("Reusing vectors", total) as task, storage_errors(staging):
        for space, records in base.manifest.shards.items():
            linked[space] = [
                ShardDone(space=space, number=number, truncated=0, record=record)
                for number, record in enumerate(records)
            ]
            for record in records:
                link_file(base.folder, staging, record.file, record)
                task.advance(record.rows)
    return linked


def link_file(folder: Path, staging: Path, file: str, record: FileRecord | ShardRecord) -> None:
    """Hard-link or copy a file of a version into a staging folder, unless it is whole there.

    It is hashed before anything is removed, and again once linked.

    Raises:
        Checksum: the file differs from its record.
        OSError: it cannot be linked, nor copied.
    """
    source, target = folder / file, staging / file

    def is_whole(place: Path) -> bool:
        return has_content(place, file, size=record.bytes, sha256=record.sha256)

    target.parent.mkdir(parents=True, exist_ok=True)
    if is_whole(staging):
        return
    if not is_whole(folder):
        raise Checksum(f"{source} has changed since it was published.", path=source, hint=_VERIFY)
    target.unlink(missing_ok=True)
    with os.fdopen(open_file(folder, file), "rb") as opened:
        try:
            target.hardlink_to(source)
        except OSError:  # another file system, or one without hard links
            with target.open("xb") as copy:
                shutil.copyfileobj(opened, copy)
        if not is_whole(staging):
            raise Checksum(f"{source} changed while it was read.", path=source, hint=_VERIFY)


def choose_factory(plan: Plan, rows: int) -> str:
    """Return FAISS's factory string for an index of `rows` rows.

    Where FAISS cannot open inverted files, what is planned for few rows is a flat index.

    Raises:
        ConfigError: no index fits into the plan's memory budget, or FAISS for this system could not
            open it.
    """
    factory = plan.index_factory
    if factory is None:
        factory = plan_index(
            rows=rows,
            dim=plan.encoders[0].dim,
            budget_bytes=plan.memory_budget_bytes,
            spaces=len(plan.encoders),
        ).factory
        fits = index_bytes(FLAT, rows=rows, dim=plan.encoders[0].dim) <= plan.memory_budget_bytes
        if rows <= SCANNED_ROWS and fits and not has_inverted_files():
            return FLAT
    if read_factory(factory).n_lists:
        require_inverted_files()
    return factory


def index_and_publish(
    root: Path,
    staging: Path,
    plan: Plan,
    numbered: Numbered,
    shards: dict[str, list[ShardDone]],
    *,
    factory: str,
    licence: str = "",
    gpu: Gpu | None = None,
    progress: Progress,
) -> Manifest:
    """Index the first space, measure its recall, and publish; see `imprompt.store.publish.publish`.

    Args:
        shards: of each space, in row order.
        licence: of the prompts; see `Manifest`.
        gpu: builds the index; None builds it on the CPU.
    """
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
        parameters=numbered.parameters,
        licence=licence,
    )
    return publish(root, staging, manifest, progress=progress)
