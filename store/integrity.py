"""Verification: whether every byte of a version is what was published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import Checksum, StoreError
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, VectorIndex
from imprompt.store import layout
from imprompt.store.check_queries import check_query_problem
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_version import PinnedManifest, pin_manifest
from imprompt.store.indexes import open_index
from imprompt.store.manifest import FileRecord, Manifest, decode_manifest, sha256_bytes
from imprompt.store.paths import folders_of, hash_file, others_in, size_of
from imprompt.store.prompts import DuckPrompts
from imprompt.store.shards import ShardedVectors

NO_SUCH_FILE = "no such file"


@dataclass(frozen=True, slots=True)
class Damage:
    """A deviation of one file from the manifest; `file` is relative to the version."""

    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: expected {self.expected}, found {self.found}"


def verify(
    root: Path, *, name: str | None = None, mapped: bool = True, progress: Progress = SILENT
) -> list[Damage]:
    """Read a whole version again and list what differs from its manifest: nothing if it is whole.

    Every file is hashed; files that do not belong there are listed; rows are counted and their
    digest computed; the check queries are searched among all rows. The content of damaged files is
    not examined further.

    Args:
        root: of the index; it may be read-only.
        name: of the version; None is the one in service.
        mapped: see `imprompt.store.index_version.open_version`.
        progress: counts the bytes as they are hashed.

    Raises:
        NoIndex: nothing was published there, or not under that name.
        FormatVersion: it was written in another major format.
    """
    try:
        with pin_manifest(root, name) as pinned:
            problems = list(_manifest_problems(pinned))
            try:
                manifest = decode_manifest(pinned.content, path=pinned.folder / layout.MANIFEST)
            except Checksum as error:
                return problems or [Damage(layout.MANIFEST, "a manifest", error.message)]
            problems += _file_problems(pinned.folder, manifest, progress)
            damaged = {problem.file for problem in problems}
            if layout.MANIFEST not in damaged:
                problems += _content_problems(
                    pinned.folder, manifest, damaged, progress, mapped=mapped
                )
            return problems
    except Checksum as error:
        file = error.path.relative_to(root).as_posix()
        return [Damage(file, "the version in service", error.message)]


def repaired_by_reindex(problems: Sequence[Damage]) -> bool:
    """Return whether `imprompt.indexer.reindexing.reindex` makes everything that is damaged anew.

    That is so if manifest, prompts and vectors are whole.
    """
    return all(
        problem.expected != NO_SUCH_FILE
        and (
            problem.file.startswith("index/")
            or problem.file.endswith("/rows.crc32")
            or problem.file in (layout.PLAN, layout.JOURNAL)
        )
        for problem in problems
    )


def content_problems(
    folder: Path, manifest: Manifest, *, progress: Progress = SILENT
) -> Iterator[Damage]:
    """Compare the files of a staged version with each other; each one is what its record says.

    Rows are counted and their digest computed; the check queries are searched among all rows.
    """
    return _content_problems(folder, manifest, set(), progress, mapped=True)


def _manifest_problems(pinned: PinnedManifest) -> Iterator[Damage]:
    sha256 = sha256_bytes(pinned.content)
    if pinned.expected_sha256 not in ("", sha256):
        yield Damage(layout.MANIFEST, f"sha256 {pinned.expected_sha256}", f"sha256 {sha256}")


def _file_problems(folder: Path, manifest: Manifest, progress: Progress) -> Iterator[Damage]:
    total = manifest.n_bytes
    with progress.start("Hashing files", total) as task:
        for file, record in manifest.files.items():
            try:
                size, digest = _size_and_digest(folder, file, record)
            except Checksum as error:
                yield Damage(file, f"{record.bytes} bytes", error.message)
                continue
            except OSError as error:
                yield Damage(file, f"{record.bytes} bytes", error.strerror or "an error")
                continue
            if size != record.bytes:
                yield Damage(file, f"{record.bytes} bytes", f"{size} bytes")
            elif digest != record.sha256:
                yield Damage(file, f"sha256 {record.sha256}", f"sha256 {digest}")
            task.advance(record.bytes)
    known = {layout.MANIFEST, *manifest.files}
    for file in others_in(folder, known):
        yield Damage(file, NO_SUCH_FILE, "a file")


def _size_and_digest(folder: Path, file: str, record: FileRecord) -> tuple[int, str]:
    with folders_of(folder) as opened:
        size = size_of(folder, file, opened)
    return hash_file(folder, file) if size == record.bytes else (size, "")


def _content_problems(
    folder: Path, manifest: Manifest, damaged: set[str], progress: Progress, *, mapped: bool
) -> Iterator[Damage]:
    """Compare the undamaged files with each other."""
    if not damaged & {layout.PROMPTS, f"{layout.PROMPTS}.wal"}:
        with progress.start("Counting the prompts", None):
            yield from _prompt_problems(folder, manifest)
    for space, shards in manifest.shards.items():
        info = manifest.indexes.get(space)
        files = {manifest.row_sums[space], *(shard.file for shard in shards)}
        files |= set() if info is None else {*info.all_files}
        if not damaged & files:
            with progress.start(f"Searching the check queries of {space}", None):
                yield from _space_problems(folder, manifest, space, mapped=mapped)


def _prompt_problems(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    try:
        with DuckPrompts(folder / layout.PROMPTS, thorough=True) as prompts:
            rows, digest, parameters = len(prompts), prompts.digest(), prompts.n_parameters
    except Checksum as error:
        yield Damage(layout.PROMPTS, f"{manifest.rows} rows", error.message)
        return
    if rows != manifest.rows:
        yield Damage(layout.PROMPTS, f"{manifest.rows} rows", f"{rows} rows")
    if parameters != manifest.parameters:
        expected = f"generation parameters of {manifest.parameters} rows"
        yield Damage(layout.PROMPTS, expected, f"those of {parameters}")
    if digest != manifest.rows_digest:
        yield Damage(layout.PROMPTS, f"rows digest {manifest.rows_digest}", f"rows digest {digest}")


def _space_problems(
    folder: Path, manifest: Manifest, space: str, *, mapped: bool
) -> Iterator[Damage]:
    part, check_queries = f"vectors of {space}", manifest.check_queries.get(space, [])
    try:
        vectors = ShardedVectors(
            folder, manifest.shards[space], mapped=mapped, sums=manifest.row_sums[space]
        )
        if len(vectors) != manifest.rows:
            yield Damage(part, f"{manifest.rows} rows", f"{len(vectors)} rows")
            return
        index: VectorIndex = ExactIndex(vectors)
        if (info := manifest.indexes.get(space)) is not None:
            index = open_index(folder, info, vectors, mapped=mapped)
        problem = check_query_problem(check_queries, vectors, index, all_rows=True)
    except StoreError as error:
        yield Damage(part, "vectors that can be searched", error.message)
        return
    if problem:
        yield Damage(part, "the check queries' answers", problem)
