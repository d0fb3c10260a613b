"""Read a pack, which may come from anybody, into the staging folder of an index.

Nothing of it is run or unpickled, and its names lead nowhere: only files that its checked manifest
must have are written, each whole or not at all, and compared with length and hash.
"""

from __future__ import annotations

import hashlib
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.atomic_files import atomic_write, storage_errors
from imprompt.core.errors import Checksum, ConfigError
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.store import layout
from imprompt.store.faiss_index import build_faiss_index
from imprompt.store.index_plan import FLAT
from imprompt.store.integrity import content_problems
from imprompt.store.manifest import FileRecord, Manifest, ShardRecord
from imprompt.store.packs.archive import DAMAGED, ArchiveReader, Extent
from imprompt.store.packs.frames import DamagedFrames, expanded
from imprompt.store.packs.int8_vectors import DamagedRows, restored_file
from imprompt.store.packs.pack_record import (
    CARD,
    FRAMES,
    PROMPT_LINES,
    RECORD,
    PackRecord,
    canonical_plan,
    decode_record,
    int8_member,
    most_expanded_bytes,
    most_record_bytes,
)
from imprompt.store.packs.prompt_lines import read_lines, write_prompts
from imprompt.store.paths import check_tree, has_content
from imprompt.store.prompts import DuckPrompts
from imprompt.store.shards import ShardedVectors, keep_shard, write_row_sums

_LONGEST_CARD = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenPack:
    """A pack whose structure was checked: its record, and where its members lie."""

    path: Path
    record: PackRecord
    archive: ArchiveReader
    extents: dict[str, Extent]

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member, expanded, and compare them with their record at the end.

        Raises:
            Checksum: they are others.
        """
        record, extent = self.record.members[name], self.extents[name]
        digest, raw = hashlib.sha256(), _Summed(self.archive)
        try:
            for chunk in expanded(
                raw.read, offset=extent.offset, length=extent.length, n_bytes=record.bytes
            ):
                digest.update(chunk)
                yield chunk
        except DamagedFrames as error:
            raise self.archive.damaged(f"{name} is damaged: {error}") from error
        if (digest.hexdigest(), raw.crc) != (record.sha256, extent.crc):
            raise self.archive.damaged(f"{name} has another sum than its record")


class _Summed:
    """Reads frames, of which the table at their end is asked for first; `crc` is of all of them."""

    def __init__(self, archive: ArchiveReader) -> None:
        self._archive = archive
        self._table = b""
        self._crc = 0

    def read(self, offset: int, n_bytes: int) -> bytes:
        content = self._archive.read(offset, n_bytes)
        if self._table:
            self._crc = zlib.crc32(content, self._crc)
        else:
            self._table = content
        return content

    @property
    def crc(self) -> int:
        return zlib.crc32(self._table, self._crc)


@contextmanager
def open_pack(path: Path) -> Iterator[OpenPack]:
    """Open a pack: its structure, its record and the manifest in it are checked, no content yet.

    Raises:
        ConfigError: there is no such file, or it is not a regular one.
        FormatVersion: it is of another major format.
        Checksum: it is not a pack, or not whole.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path} is not a regular file.", hint="Name a pack.")
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}.", hint="Name a file that `pack` wrote."
        ) from error
    with file:
        archive = ArchiveReader(file, path)
        if not archive.begins_as_one():
            raise Checksum(
                f"{path} is not a pack.", path=path, hint="Name a file that `pack` wrote."
            )
        record = _record(archive)
        extents = {}
        for name in record.members:
            extents[name] = archive.expect(name if name == CARD else name + FRAMES)
        archive.expect_end()
        card = record.members[CARD]
        if card.bytes != extents[CARD].length or card.bytes > _LONGEST_CARD:
            raise archive.damaged(f"{CARD} has another length than its record")
        if record.n_bytes > most_expanded_bytes(archive.n_bytes):
            raise archive.damaged(
                f"its {archive.n_bytes:,} bytes claim to expand to {record.n_bytes:,}"
            )
        yield OpenPack(path, record, archive, extents)


def needed_bytes(pack: OpenPack) -> int:
    """Return the room on disk that installing the pack takes, what is staged already included."""
    manifest = pack.record.manifest
    made = sum(
        shard.bytes
        for space, shards in manifest.shards.items()
        for shard in shards
        if space in manifest.indexes and manifest.indexes[space].factory == FLAT
    )
    shards = sum(shard.bytes for shards in manifest.shards.values() for shard in shards)
    # A row of DuckDB's file is half as long again as its line.
    lines = pack.record.members[PROMPT_LINES].bytes // 2
    return pack.record.n_bytes + lines + made + (shards if pack.record.int8 else 0)


def unpack(pack: OpenPack, staging: Path, *, progress: Progress = SILENT) -> None:
    """Write the files of a version into its staging folder; what is whole there stays.

    Raises:
        Checksum: a member is not what its record says, or the files contradict each other.
        ConfigError: FAISS for this system cannot open its index.
        StorageFull: the disk is full or may not be written.
    """
    manifest = pack.record.manifest
    with storage_errors(staging):
        check_tree(staging)  # nothing is written through a link
        staging.mkdir(parents=True, exist_ok=True)
    with atomic_write(staging / layout.PLAN) as file:
        file.write(canonical_plan(manifest.plan))
    rounded = _int8_shards(manifest) if pack.record.int8 else {}
    with progress.start("Unpacking", pack.record.n_bytes) as task:
        for name, record in pack.record.members.items():
            if name == PROMPT_LINES:
                _unpack_prompts(pack, staging / layout.PROMPTS)
            elif name == CARD:
                _check_card(pack, record)
            elif name in rounded:
                _restore_shard(pack, name, *rounded[name], staging)
            elif not has_content(staging, name, size=record.bytes, sha256=record.sha256):
                kept = ShardRecord(name, 0, record.bytes, record.sha256)
                keep_shard(staging, kept, pack.chunks(name))
            task.advance(record.bytes)
    for space, shards in manifest.shards.items():
        vectors = ShardedVectors(staging, shards)
        write_row_sums(staging, manifest.row_sums[space], vectors)
        info = manifest.indexes.get(space)
        if info is not None and info.factory == FLAT:
            made = build_faiss_index(staging, info.file, vectors, progress=progress)
            if (made.header_sha256, made.sums) != (info.header_sha256, info.sums):
                raise pack.archive.damaged(f"{info.file} cannot be made of its vectors")
    for problem in content_problems(staging, manifest, progress=progress):
        raise Checksum(
            f"{pack.path} holds what no index has: {problem}.", path=pack.path, hint=DAMAGED
        )


def _record(archive: ArchiveReader) -> PackRecord:
    extent = archive.expect(RECORD)
    most = most_record_bytes(archive.n_bytes)
    if extent.length > most:
        raise archive.damaged(
            f"its {RECORD} has {extent.length:,} bytes; at most {most:,} are read"
        )
    return decode_record(archive.content(extent), path=archive.path)


def _int8_shards(manifest: Manifest) -> dict[str, tuple[ShardRecord, int]]:
    """Return (the shard, its dimensions) of every member that holds one as int8."""
    dims = {encoder.space: encoder.dim for encoder in manifest.encoders}
    return {
        int8_member(shard.file): (shard, dims.get(space, 0))
        for space, shards in manifest.shards.items()
        for shard in shards
    }


def _restore_shard(pack: OpenPack, name: str, shard: ShardRecord, dim: int, staging: Path) -> None:
    if has_content(staging, shard.file, size=shard.bytes, sha256=shard.sha256):
        return
    try:
        chunks = restored_file(pack.chunks(name), rows=shard.rows, dim=dim)
        keep_shard(staging, shard, chunks)
    except DamagedRows as error:
        raise pack.archive.damaged(f"{name} is damaged: {error}") from error


def _check_card(pack: OpenPack, record: FileRecord) -> None:
    content = pack.archive.content(pack.extents[CARD])
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise pack.archive.damaged(f"{CARD} has another sha256 than its record")


def _unpack_prompts(pack: OpenPack, target: Path) -> None:
    """Write the database of prompts, unless an earlier attempt did."""
    manifest = pack.record.manifest
    try:
        with DuckPrompts(target, thorough=True) as prompts:
            if (len(prompts), prompts.digest()) == (manifest.rows, manifest.rows_digest):
                return
    except Checksum:
        pass
    target.unlink(missing_ok=True)
    chunks = pack.chunks(PROMPT_LINES)
    write_prompts(target, read_lines(chunks, path=pack.path, most_rows=manifest.rows))
