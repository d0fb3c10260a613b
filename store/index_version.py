"""One published version of an index: pinned while it is read, checked before it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imprompt.core.errors import Checksum, NoIndex, SpaceMismatch, StoreError
from imprompt.core.protocols import VectorIndex
from imprompt.core.values import prompt_key
from imprompt.store import layout
from imprompt.store.check_queries import check_query_problem
from imprompt.store.exact_index import ExactIndex
from imprompt.store.file_watch import FileWatch
from imprompt.store.gpu import Gpu
from imprompt.store.gpu_index import GpuIndex
from imprompt.store.indexes import open_index
from imprompt.store.layout import VERIFY
from imprompt.store.locking import try_shared_lock
from imprompt.store.manifest import (
    Manifest,
    decode_manifest,
    read_manifest,
    sha256_bytes,
    space_mismatch,
)
from imprompt.store.paths import folders_of, open_file, size_of
from imprompt.store.prompts import DuckPrompts
from imprompt.store.publish import read_current, refuse_older_format, version_names
from imprompt.store.shards import ShardedVectors

_PIN_ATTEMPTS = 25
_PIN_WAIT_S = 0.02


@dataclass(frozen=True, slots=True)
class PinnedManifest:
    """The manifest of a version that cannot be removed until the pin is let go.

    `expected_sha256` is what `CURRENT` says of `content`; "" for a version opened by name.
    """

    folder: Path
    content: bytes
    expected_sha256: str


class VersionFiles(Protocol):
    """A version whose files are read one by one: its folder, and the manifest that lists them."""

    @property
    def folder(self) -> Path: ...

    @property
    def manifest(self) -> Manifest: ...


@dataclass(frozen=True, slots=True)
class UnopenedVersion:
    """A pinned version of which the manifest alone was checked; see `pin_version`."""

    folder: Path
    manifest: Manifest


class IndexVersion:
    """A pinned version: its manifest, prompts, vectors and indexes.

    A context manager; safe to read from several threads.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, resources: ExitStack, *, mapped: bool
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._resources = resources
        shards = [record.file for records in manifest.shards.values() for record in records]
        watched = [layout.PROMPTS, *shards]
        if mapped:
            watched += [file for info in manifest.indexes.values() for file in info.files]
        # As text: a `Path` for each of thousands of files takes 25 µs.
        self._watch = FileWatch(f"{folder}/{file}" for file in watched)
        self._vectors = {
            space: ShardedVectors(folder, records, mapped=mapped, sums=manifest.row_sums[space])
            for space, records in manifest.shards.items()
        }
        self._indexes = {
            space: open_index(folder, info, self.vectors(space), mapped=mapped)
            for space, info in manifest.indexes.items()
        }
        self.prompts = resources.enter_context(
            DuckPrompts(folder / layout.PROMPTS, parameters=manifest.parameters > 0)
        )

    @property
    def published_as(self) -> str:
        """The name of the version in `CURRENT`."""
        return self.manifest.version

    @property
    def space(self) -> str:
        """The space that is searched: that of the first encoder."""
        return self.manifest.encoders[0].space

    def index(self, space: str) -> VectorIndex:
        """Return the index of a space.

        Raises:
            SpaceMismatch: the version has no index of that space.
        """
        if space not in self._indexes:
            raise self._mismatch(space)
        return self._indexes[space]

    def vectors(self, space: str) -> ShardedVectors:
        """Return the stored vectors of a space.

        Raises:
            SpaceMismatch: the version has no vectors of that space.
        """
        if space not in self._vectors:
            raise self._mismatch(space)
        return self._vectors[space]

    @property
    def index_lines(self) -> dict[str, str]:
        """The index of each searched space and its measured recall, in words."""
        return {
            space: f"{i.factory}, recall@10 {i.recall_at_10:.3f} with effort {i.effort:.2f}"
            for space, i in self.manifest.indexes.items()
        }

    def check_untouched(self) -> None:
        """Raise `Checksum` if a file that is still read was changed since it was opened.

        Files that were removed or replaced do no harm: their old bytes are still read.
        """
        path = self._watch.changed()
        if path is not None:
            raise Checksum(f"{path} was changed while it was read.", path=path, hint=VERIFY)

    def search_on(self, gpu: Gpu) -> None:
        """Search on the GPU from now on; it gets the vectors at the first search."""
        for space, index in self._indexes.items():
            moved = GpuIndex(index, self.vectors(space), gpu)
            self._resources.callback(moved.close)
            self._indexes[space] = moved

    def close(self) -> None:
        """Let go of the files and of the pin; calling it again does nothing."""
        self._resources.close()

    def __enter__(self) -> IndexVersion:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _mismatch(self, space: str) -> SpaceMismatch:
        return space_mismatch(
            self.manifest, space, instead="build another index with --encoder and --index"
        )


def open_version(root: Path, name: str | None = None, *, mapped: bool = True) -> IndexVersion:
    """Pin a version and check it: lengths of all files, counts of rows, and the check queries.

    The check queries are searched among the rows that they name, which reads little however large
    the index is; `imprompt.store.integrity.verify` searches all rows and reads every byte.

    Args:
        root: of the index; it may be read-only.
        name: of the version; None is the one in service.
        mapped: False reads the index into memory and vectors when they are needed, so that a file
            that another program cuts short is an error and not the end of the process.

    Raises:
        NoIndex: nothing was published there, or not under that name.
        FormatVersion: it was written in another major format.
        Checksum: a file is not what the manifest says.
    """
    resources = ExitStack()
    try:
        pinned = resources.enter_context(pin_version(root, name))
        check_lengths(pinned.folder, pinned.manifest)
        version = IndexVersion(pinned.folder, pinned.manifest, resources, mapped=mapped)
        _check_contents(version)
    except BaseException:
        resources.close()
        raise
    return version


@contextmanager
def pin_version(root: Path, name: str | None = None) -> Iterator[UnopenedVersion]:
    """Pin a version and check its manifest; other files may be damaged or missing.

    Raises:
        NoIndex, FormatVersion: see `open_version`.
        Checksum: the manifest is not the one that was published.
    """
    with pin_manifest(root, name) as pinned:
        path = pinned.folder / layout.MANIFEST
        if pinned.expected_sha256 not in ("", sha256_bytes(pinned.content)):
            raise Checksum(
                f"{path} is not the manifest that was published.", path=path, hint=VERIFY
            )
        manifest = decode_manifest(pinned.content, path=path)
        if manifest.version != pinned.folder.name:
            raise Checksum(f"{path} is that of {manifest.version}.", path=path, hint=VERIFY)
        yield UnopenedVersion(pinned.folder, manifest)


@contextmanager
def pin_manifest(root: Path, name: str | None = None) -> Iterator[PinnedManifest]:
    """Hold a shared lock on a version's manifest, which keeps the version from being removed.

    It needs no right to write.

    Raises:
        NoIndex: nothing was published there, or not under that name.
        FormatVersion: the index is of a format before 3.
        Checksum: `CURRENT` is damaged or names a version that is missing.
    """
    descriptor, folder, expected = _pin(root, name)
    try:
        content = read_manifest(descriptor, folder)
        yield PinnedManifest(folder, content, expected)
    finally:
        os.close(descriptor)


def _pin(root: Path, name: str | None) -> tuple[int, Path, str]:
    """Return (descriptor that holds the lock, folder, sha256 from `CURRENT`)."""
    for _ in range(_PIN_ATTEMPTS):
        version_name, expected = _wanted(root, name)
        path = layout.version_folder(root, version_name) / layout.MANIFEST
        try:
            descriptor = open_file(root, path.relative_to(root).as_posix(), root=True)
        except FileNotFoundError:
            # It is being removed, or gone; another version may be in service by now.
            refuse_older_format(root, version_name)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
        else:
            # Between opening and locking it may have been moved away: then nothing is held.
            if try_shared_lock(descriptor) and path.is_file():
                return descriptor, path.parent, expected
            os.close(descriptor)
        time.sleep(_PIN_WAIT_S)
    raise Checksum(f"{path} is missing.", path=path, hint=VERIFY)


def _wanted(root: Path, name: str | None) -> tuple[str, str]:
    """Return (name, sha256 of its manifest or "") of the version in question."""
    if name is not None:
        names = version_names(root)
        if name not in names:
            raise NoIndex(
                f"{root} has no version {name!r}; there are: {', '.join(names) or 'none'}."
            )
        return name, ""
    current = read_current(root)
    if current is None:
        raise NoIndex(
            f"There is no index in {root}.", hint=f"Build one: imprompt build-index --index {root}"
        )
    return current


def check_lengths(folder: Path, manifest: Manifest) -> None:
    """Raise `Checksum` if a file of the version is missing or not as long as its manifest says."""
    with folders_of(folder) as opened:
        for file, record in manifest.files.items():
            try:
                size = size_of(folder, file, opened)
            except OSError as error:
                path = folder / file
                raise Checksum(
                    f"{path} is missing: {error.strerror}.", path=path, hint=VERIFY
                ) from error
            if size != record.bytes:
                path = folder / file
                raise Checksum(
                    f"{path} has {size} bytes, not {record.bytes}.", path=path, hint=VERIFY
                )
    log = folder / f"{layout.PROMPTS}.wal"
    if os.path.lexists(log):
        raise Checksum(
            f"{log} does not belong there: the prompts were opened for writing.",
            path=log,
            hint=VERIFY,
        )


def _check_contents(version: IndexVersion) -> None:
    manifest, folder = version.manifest, version.folder
    counts = {layout.PROMPTS: len(version.prompts)}
    counts |= {f"vectors of {space}": len(version.vectors(space)) for space in manifest.shards}
    for part, rows in counts.items():
        if rows != manifest.rows:
            raise Checksum(
                f"{folder}: {part} has {rows} rows, not {manifest.rows}.", path=folder, hint=VERIFY
            )
    for space, check_queries in manifest.check_queries.items():
        vectors = version.vectors(space)
        index = version.index(space) if space in manifest.indexes else ExactIndex(vectors)
        problem = check_query_problem(check_queries, vectors, index, all_rows=False)
        if problem:
            raise Checksum(f"{folder}: in {space}, {problem}.", path=folder, hint=VERIFY)
        for prompt in version.prompts.get_many([query.row_id for query in check_queries]):
            if prompt.prompt_key != prompt_key(prompt.embedded_text):
                raise Checksum(
                    f"{folder}: row {prompt.row_id} is not the prompt that its key says.",
                    path=folder,
                    hint=VERIFY,
                )
