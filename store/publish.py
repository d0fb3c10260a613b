"""Publishing: a staged build becomes the version in service in one atomic step."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from imprompt.core.atomic_files import (
    atomic_write,
    sha256_file,
    storage_errors,
    sync_file,
    sync_folder,
)
from imprompt.core.errors import Checksum, FormatVersion, StoreError
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.store import layout
from imprompt.store.locking import OPEN_FILES_PIN, try_lock, write_lock
from imprompt.store.manifest import (
    REBUILD_WITH,
    FileRecord,
    Manifest,
    encode_manifest,
    manifest_in,
    sha256_bytes,
)
from imprompt.store.paths import entries, is_version, open_file, read_file

_READ_ONLY = 0o444
_CURRENT = re.compile(rb"([0-9A-Za-z][0-9A-Za-z.-]{0,199}) ([0-9a-f]{64})\n")
_CURRENT_BYTES = 4096
_NAMED_AT = "%Y%m%dT%H%M%S.%fZ"


def publish(
    root: Path, staging: Path, manifest: Manifest, *, progress: Progress = SILENT
) -> Manifest:
    """Make a staged build the current version; hold the write lock, and close `prompts.duckdb`.

    The steps: fsync every file, write the manifest, rename the folder, fsync its parent, take the
    right to write from the files, replace `CURRENT`, fsync. Until that last step the old version
    answers. A crash between the rename and the last step leaves a whole version of this plan
    that `find_version` finds and `make_current` puts in service.

    Args:
        root: of the index.
        staging: the folder to publish; it is gone afterwards. Files that the manifest does not need
            are left out.
        manifest: complete but for `version`, `created` and `files`.

    Returns:
        The manifest as it was written.

    Raises:
        StorageFull: the disk is full or may not be written.
        StoreError: a write-ahead log of DuckDB is left, so that the database was not closed.
        Checksum: a shard has another length than its record.
    """
    created = datetime.now(UTC)
    name = _new_name(root, created, manifest.plan_sha256)
    with storage_errors(staging):
        files = _file_records(staging, manifest, progress)
        _sync_tree(staging, files)
        complete = msgspec.structs.replace(
            manifest, version=name, created=created.isoformat(timespec="seconds"), files=files
        )
        content = encode_manifest(complete)
        with atomic_write(staging / layout.MANIFEST) as file:
            file.write(content)
        target = layout.version_folder(root, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(target)
        sync_folder(target.parent)
        sync_folder(staging.parent)
    _sweep(target, keep={layout.MANIFEST, *files})
    _make_read_only(target, (layout.MANIFEST, *files))
    _write_current(root, name, content)
    return complete


def _new_name(root: Path, created: datetime, plan_sha256: str) -> str:
    """Return a name after those of all versions, also when the clock stands or was set back."""
    at = created.replace(tzinfo=None)
    for name in version_names(root):
        with suppress(ValueError):  # a name that is not ours
            at = max(
                at, datetime.strptime(name.split("-")[0], _NAMED_AT) + timedelta(microseconds=1)
            )
    return f"{at:{_NAMED_AT}}-{plan_sha256[:8]}"


def current_name(root: Path) -> str | None:
    """Return the name of the version in service; None if none was published.

    Raises:
        Checksum: `CURRENT` cannot be understood.
    """
    found = read_current(root)
    return None if found is None else found[0]


def read_current(root: Path) -> tuple[str, str] | None:
    """Return (name, sha256 of its manifest) of the version in service; None if there is none.

    Raises:
        Checksum: `CURRENT` cannot be understood.
    """
    path = layout.current_path(root)
    try:
        content = read_file(root, path.name, most_bytes=_CURRENT_BYTES, root=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    match = _CURRENT.fullmatch(content)
    if match is None:
        raise Checksum(
            f"{path} is damaged: it does not name a version and a sha256.",
            path=path,
            hint=layout.REBUILD,
        )
    return match[1].decode("ascii"), match[2].decode("ascii")


def find_version(root: Path, plan_sha256: str) -> str | None:
    """Return the newest whole version of this plan, in service or not; None if there is none."""
    for name in reversed(version_names(root)):
        with suppress(OSError, StoreError):
            if manifest_in(layout.version_folder(root, name))[1].plan_sha256 == plan_sha256:
                return name
    return None


def make_current(root: Path, name: str) -> None:
    """Put an existing version in service and remove leftovers of its build; hold the write lock.

    Raises:
        StoreError: it is not there or not whole.
        StorageFull: the disk is full or may not be written.
    """
    folder = layout.version_folder(root, name)
    try:
        content, manifest = manifest_in(folder)
    except OSError as error:
        raise StoreError(f"{folder / layout.MANIFEST} cannot be read: {error.strerror}.") from error
    _sweep(folder, keep={layout.MANIFEST, *manifest.files})
    _make_read_only(folder, (layout.MANIFEST, *manifest.files))
    _write_current(root, name, content)


def version_names(root: Path) -> list[str]:
    """Return the names of the versions below `root`, oldest first."""
    return [
        path.name
        for path, is_link in entries(layout.versions_folder(root))
        if not is_link and is_version(path.name)
    ]


def refuse_older_format(root: Path, name: str) -> None:
    """Raise if the version that `CURRENT` names was published before format 3.0.

    Raises:
        FormatVersion: it is where earlier formats had their versions.
    """
    older = layout.older_versions_folder(root) / name
    if older.is_dir() and not layout.version_folder(root, name).is_dir():
        raise FormatVersion(
            f"{root} was built by an older imprompt, in a format before 3.0.", hint=REBUILD_WITH
        )


def collect_garbage(
    root: Path, *, keep: int = 1, keep_staging: bool = False
) -> list[tuple[str, int]]:
    """Remove versions that are not in service, and builds that were never finished.

    The current version stays (the newest, if none is in service), and so do the `keep` newest
    others and those that a reader has pinned. Versions of formats before 3.0 are removed. A link
    in the place of a folder is removed, its target stays.

    Args:
        root: of the index.
        keep: how many old versions stay.
        keep_staging: leave unfinished builds, so that they can resume.

    Returns:
        (path below `root`, bytes) of each folder that was removed.

    Raises:
        BuildLocked: another process is writing.
        Checksum: `CURRENT` is damaged, so that nothing is certain to be out of service.
        FormatVersion: the current version is in a format before 3.0.
        StorageFull: the folder may not be written.
    """
    if not root.is_dir():
        return []
    removed = []
    with write_lock(root), storage_errors(root):
        unfinished = (
            [] if keep_staging else [path for path, _ in entries(layout.staging_root(root))]
        )
        names = version_names(root)
        current = current_name(root) or (names[-1] if names else None)
        if current is not None:
            refuse_older_format(root, current)
            removed += _remove_older_formats(root)
        links = [
            path
            for path, is_link in entries(layout.versions_folder(root))
            if is_link and path.name != current
        ]
        removed += [(path, _remove(path)) for path in links]
        old = [name for name in names if name != current]
        for name in old[: max(len(old) - keep, 0)]:
            folder = layout.version_folder(root, name)
            moved = _take_away(folder, layout.staging_root(root) / name)
            if moved is not None:
                removed.append((folder, _remove(moved)))
        removed += [(folder, _remove(folder)) for folder in unfinished]
    return [(folder.relative_to(root).as_posix(), size) for folder, size in removed]


def purge_others(root: Path, name: str) -> list[tuple[str, int]]:
    """Remove all versions but one, those of earlier formats included, and all unfinished builds.

    Unlike `collect_garbage`, it does not wait for readers. Files that a reader has open stay
    readable until it closes them; a shard that it maps only later is missing (`Checksum`). The
    write lock must be held.

    Returns:
        (path below `root`, bytes) of each folder that was removed.

    Raises:
        StorageFull: the folder may not be written.
    """
    with storage_errors(root):
        removed = [(folder, _remove(folder)) for folder, _ in entries(layout.staging_root(root))]
        removed += _remove_older_formats(root)
        for folder, is_link in entries(layout.versions_folder(root)):
            if folder.name == name:
                continue
            if is_link:
                removed.append((folder, _remove(folder)))
                continue
            # Moved first, so that no reader opens half of it; a kill in between leaves it to the
            # next call.
            target = layout.staging_root(root) / folder.name
            target.parent.mkdir(exist_ok=True)
            removed += [(folder, _remove(folder.rename(target)))]
        sync_folder(root)
    return sorted((folder.relative_to(root).as_posix(), size) for folder, size in removed)


def _remove_older_formats(root: Path) -> list[tuple[Path, int]]:
    older = layout.older_versions_folder(root)
    return [(older, _remove(older))] if older.is_symlink() or older.is_dir() else []


def _take_away(folder: Path, target: Path) -> Path | None:
    """Move a version where no reader finds it, in one step; None if a reader has pinned it."""
    target.parent.mkdir(exist_ok=True)
    if OPEN_FILES_PIN:
        try:
            return folder.rename(target)
        except PermissionError:
            return None
    try:
        descriptor = open_file(folder, layout.MANIFEST)
    except (FileNotFoundError, Checksum):  # no reader opens what has no manifest
        return folder.rename(target)
    try:
        return folder.rename(target) if try_lock(descriptor) else None
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> int:
    """Remove a folder, or only the link if it is one; return the bytes of its files."""
    if folder.is_symlink():
        folder.unlink()
        return 0
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return size


def _file_records(staging: Path, manifest: Manifest, progress: Progress) -> dict[str, FileRecord]:
    """Return the records of the version's files; all but the shards are hashed here."""
    known = {record.file: record for records in manifest.shards.values() for record in records}
    wanted = [layout.PLAN, layout.JOURNAL, layout.PROMPTS, *manifest.row_sums.values()]
    wanted += [file for info in manifest.indexes.values() for file in info.all_files]
    if (staging / f"{layout.PROMPTS}.wal").exists():
        raise StoreError(f"{staging / layout.PROMPTS} was not closed before it was published.")
    sizes = {
        file: (staging / file).stat().st_size
        for file in (*known, *wanted)
        if file in known or (staging / file).exists()
    }
    records: dict[str, FileRecord] = {}
    with progress.start("Hashing files", sum(sizes.values())) as task:
        for file, size in sorted(sizes.items()):
            if file in known and size != known[file].bytes:
                raise Checksum(
                    f"{staging / file} has {size} bytes, not {known[file].bytes}.",
                    path=staging / file,
                )
            records[file] = FileRecord(
                size, known[file].sha256 if file in known else sha256_file(staging / file)
            )
            task.advance(size)
    return records


def _sync_tree(folder: Path, files: dict[str, FileRecord]) -> None:
    for file in files:
        sync_file(folder / file)
    for parent in {(folder / file).parent for file in files} | {folder}:
        sync_folder(parent)


def _make_read_only(folder: Path, files: Iterable[str]) -> None:
    """Guard published files against accidental writes, as far as the system permits.

    Windows, which has no `fchmod`, would not let anybody remove them afterwards.
    """
    if not hasattr(os, "fchmod"):
        return
    for file in files:
        with suppress(OSError, Checksum), os.fdopen(open_file(folder, file), "rb") as opened:
            os.fchmod(opened.fileno(), _READ_ONLY)


def _write_current(root: Path, name: str, manifest: bytes) -> None:
    with atomic_write(layout.current_path(root)) as file:
        file.write(f"{name} {sha256_bytes(manifest)}\n".encode("ascii"))


def _sweep(folder: Path, *, keep: set[str]) -> None:
    """Remove files that only the build needed; what cannot be removed is harmless."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in keep:
            path.unlink(missing_ok=True)
