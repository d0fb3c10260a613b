"""Install a pack: check it, unpack it into a new version, and put that in service."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import Checksum, IndexDiffers, StorageFull, StoreError
from imprompt.core.hub.download import free_bytes
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.text import size_text
from imprompt.indexer.build_plan import plan_of
from imprompt.indexer.derived_vectors import derivable, with_derived
from imprompt.indexer.staging import manifest_in_service, manifest_of, put_in_service
from imprompt.store import layout
from imprompt.store.faiss_import import require_inverted_files
from imprompt.store.index_plan import read_factory
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest, encode_manifest
from imprompt.store.packs.pack_record import PackRecord, reduced
from imprompt.store.packs.unpacking import OpenPack, needed_bytes, open_pack, unpack
from imprompt.store.publish import publish, version_names


@dataclass(frozen=True, slots=True)
class InstallReport:
    """The version in service, what its pack says, and what was done.

    `installed` is False if there was nothing to do; `derived` tells whether MiniLM's vectors, which
    the pack leaves out, were computed from others.
    """

    manifest: Manifest
    record: PackRecord
    installed: bool
    derived: bool = False


def install_pack(
    root: Path, path: Path, *, replace: bool = False, progress: Progress = SILENT
) -> InstallReport:
    """Put the index of a pack in service below `root`; until then the old one answers.

    Nothing in a pack is run. It is checked first in its structure, and member by member while it is
    unpacked; then rows and check queries are compared as `verify` does. Repeat an interrupted call
    to resume it: what was unpacked is hashed and kept.

    Args:
        root: of the index; created if missing.
        path: of the pack.
        replace: overwrite an index of other content.

    Raises:
        ConfigError: there is no such file, or FAISS for this system cannot open its index.
        FormatVersion: pack or index are of another format.
        Checksum: the pack is damaged, or holds what no index has.
        IndexDiffers: there is an index of other content, and `replace` is not set.
        BuildLocked: another process is writing this index.
        StorageFull: it does not fit on the disk, or the folder may not be written.
    """
    with open_pack(path) as pack:
        manifest = pack.record.manifest
        plan_of(manifest)  # raises where later changes of the index would
        for info in manifest.indexes.values():
            if read_factory(info.factory).n_lists:
                require_inverted_files()
        _check_room(pack, root)
        with write_lock(root):
            if (found := _installed(root, manifest, progress=progress)) is not None:
                return InstallReport(found, pack.record, installed=False)
            if not replace:
                _refuse_other(root, manifest)
            staging = layout.staging_folder(root, pack.record.sha256)
            try:
                unpack(pack, staging, progress=progress)
                manifest, derived = with_derived(pack.record, staging, progress=progress)
            except Checksum:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            published = publish(root, staging, manifest, progress=progress)
        return InstallReport(published, pack.record, installed=True, derived=derived)


def _check_room(pack: OpenPack, root: Path) -> None:
    """Raise `StorageFull` if the disk lacks the room for what is not staged yet."""
    staging = layout.staging_folder(root, pack.record.sha256)
    staged = sum(path.lstat().st_size for path in staging.rglob("*") if path.is_file())
    needed = needed_bytes(pack)
    if derivable(pack.record) is not None:
        manifest = pack.record.manifest
        needed += sum(shard.bytes for shard in manifest.shards[manifest.encoders[0].space])
    missing, free = needed - staged, free_bytes(root)
    if missing > free:
        raise StorageFull(
            f"{pack.path} needs {size_text(missing)} in {root}, which has {size_text(free)} free.",
            hint="Free some space, or name another folder with --index.",
        )


def _installed(root: Path, packed: Manifest, *, progress: Progress) -> Manifest | None:
    """Put an intact version of the same content in service; None without one.

    The pack names neither version nor time, so those are not compared.
    """
    for name in reversed(version_names(root)):
        with suppress(StoreError):
            if _holds(manifest_of(root, name), packed):
                return put_in_service(root, name, progress=progress)
    return None


def _holds(manifest: Manifest, packed: Manifest) -> bool:
    """Return whether a version has all that a pack has; it may have more spaces."""
    if {*packed.shards} - {*manifest.shards}:
        return False
    kept = reduced(manifest, [*packed.shards], sources=True)
    return encode_manifest(kept) == encode_manifest(packed)


def _refuse_other(root: Path, packed: Manifest) -> None:
    """Raise `IndexDiffers` if an index is in service; a damaged one of the same rows may go."""
    manifest = manifest_in_service(root)
    if manifest is None or _holds(manifest, packed):
        return
    raise IndexDiffers(
        f"The index in {root} holds {manifest.rows:,} prompts of {manifest.corpus_label}; "
        f"the pack has {packed.rows:,} of {packed.corpus_label}.",
        hint="Use --replace to overwrite it, or name another folder with --index.",
    )
