"""What a version says of itself: `MANIFEST.json`, written last, read first.

A minor version may add fields, which older readers ignore; a newer major version is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from imprompt.core.errors import Checksum, FormatVersion
from imprompt.core.values import EncoderSpec
from imprompt.store import layout
from imprompt.store.paths import is_file_of_version, is_version, open_file, read_descriptor

FORMAT = (2, 1)
"""1.1 added `n_duplicates` to the prompts, 1.2 indexes of several files; 2.0 laid an inverted file's lists out anew; 2.1 added sums of
rows and lists. An index without sums is answered, and what changed in it after it was built is found by `verify` alone."""

_LISTS_MOVED = (2, 0)

_HINT = "Build the index again."

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
"""A number that a manifest claims: whatever is made of it fits into 64 bits."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_RowId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
_Cosine = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_MOST_DIM = 1 << 16
_MOST_PROBES = 256
_MOST_DEPTH = 32
_FREE_BYTES = 4 << 20
_BYTES_A_FILE = 4096
"""A manifest says about 700 bytes of each shard; what is longer than these, for the files that are there, is none."""


class CorpusInfo(msgspec.Struct, frozen=True):
    """A corpus that went in;

    `synthetic` where a program wrote its prompts, `origin` the hub's data set and its commit.
    """

    name: str
    fingerprint: str
    synthetic: bool = False
    origin: str = ""


class FileRecord(msgspec.Struct, frozen=True):
    """Length and sha256 (64 hex digits) of a file."""

    bytes: Count
    sha256: Sha256


class ShardRecord(msgspec.Struct, frozen=True):
    """A file of consecutive vectors; `file` is relative to the version, `provenance` says how they were made.

    Two shards of equal plan and provenance have equal bytes; otherwise they agree to 1e-3.
    """

    file: str
    rows: Count
    bytes: Count
    sha256: Sha256
    provenance: dict[str, Any] = {}


class IndexPart(msgspec.Struct, frozen=True):
    """One file of an index, over `rows` consecutive rows.

    The first `header_bytes` of the file are all that FAISS interprets (the rest are codes, of which
    any value is valid): they are compared with `header_sha256` before FAISS reads them.
    """

    file: str
    rows: Count
    header_bytes: Count
    header_sha256: Sha256


class IndexInfo(msgspec.Struct, frozen=True):
    """A FAISS index and what was measured of it.

    `recall_at_10` was measured with `effort` against the exact answer. `header_bytes` and
    `header_sha256` are those of `IndexPart`. An index of several files lists all of them, in row
    order, in `parts`, and `file` and the header are the first's. `probes_found` is how many probes
    an inverted file finds by their codes in the two lists that are nearest to each; 0 for few.
    `sums` is the file of the sums of its lists, those of the first part first, or of a flat index's
    blocks of rows; "" where it has none (see `imprompt.store.checksums`).
    """

    file: str
    factory: str
    effort: Share
    recall_at_10: Share
    header_bytes: Count
    header_sha256: Sha256
    parts: list[IndexPart] = []
    probes_found: Count = 0
    sums: str = ""

    @property
    def files(self) -> list[str]:
        """What is searched, relative to the version, in row order."""
        return [part.file for part in self.parts] or [self.file]

    @property
    def all_files(self) -> list[str]:
        """`files`, and that of the sums."""
        return [*self.files, *([self.sums] if self.sums else [])]


class CheckQuery(msgspec.Struct, frozen=True):
    """The exact answer to the stored vector of `row_id`: the nearest rows (itself among them) and their cosines."""

    row_id: _RowId
    ids: Annotated[list[_RowId], msgspec.Meta(max_length=_MOST_PROBES)]
    scores: Annotated[list[_Cosine], msgspec.Meta(max_length=_MOST_PROBES)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version: from what it was built, what it holds, and the sha256 of every file.

    `version`, `created` and `files` are filled in by `imprompt.store.publish.publish`.
    `encoders[0]` is the space that is searched. `funnel` counts corpus rows by what became of them
    ("read", "kept", "duplicate", …). `row_sums` names the file of the sums of each space's rows
    (see `imprompt.store.checksums`).
    """

    format: tuple[int, int] = FORMAT
    imprompt: str
    plan_sha256: str
    plan: dict[str, Any]
    rows: Count
    rows_digest: str
    corpus: list[CorpusInfo]
    funnel: dict[str, Count]
    encoders: list[EncoderSpec]
    shards: dict[str, list[ShardRecord]]
    indexes: dict[str, IndexInfo]
    probes: dict[str, Annotated[list[CheckQuery], msgspec.Meta(max_length=_MOST_PROBES)]]
    row_sums: dict[str, str] = {}
    version: str = ""
    created: str = ""
    files: dict[str, FileRecord] = {}

    @property
    def outdated(self) -> bool:
        """Whether its index is one that is not read any more: an inverted file of an older format."""
        return self.format < _LISTS_MOVED and any(
            info.factory.startswith("IVF") for info in self.indexes.values()
        )


class _FormatOnly(msgspec.Struct):
    format: tuple[int, int]


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of `MANIFEST.json`: indented JSON, keys of mappings sorted, one line feed at the end."""
    return (
        msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"
    )


def decode_manifest(content: bytes, *, path: Path) -> Manifest:
    """The manifest in `content`, which was read from `path`.

    Raises:
        FormatVersion: it was written in a newer major format.
        Checksum: it is not a manifest: it names a space that it has no vectors of, a file that no
            version has, a number that none can be, or is nested too deep.
    """
    try:
        found = msgspec.json.decode(content, type=_FormatOnly).format
        if found[0] > FORMAT[0]:
            raise FormatVersion(
                f"{path.parent} is in format {found[0]}.{found[1]}; this version reads formats up to {FORMAT[0]}.x.",
                hint="Update imprompt, or build the index again with this version.",
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Checksum(f"{path} is not a manifest: {reason}.", path=path, hint=_HINT) from error
    for reason in _contradictions(manifest):
        raise Checksum(f"{path} is not a manifest: {reason}.", path=path, hint=_HINT)
    return manifest


def manifest_in(folder: Path) -> tuple[bytes, Manifest]:
    """(bytes, value) of the manifest of the version in a folder.

    Raises:
        FormatVersion, Checksum: as `decode_manifest`; also where it is no regular file, or too
            long.
        OSError: it is not there, or cannot be read.
    """
    descriptor = open_file(folder, layout.MANIFEST)
    try:
        content = read_manifest(descriptor, folder)
    finally:
        os.close(descriptor)
    return content, decode_manifest(content, path=folder / layout.MANIFEST)


def read_manifest(descriptor: int, folder: Path) -> bytes:
    """The bytes of an open manifest; as many as the files beside it can need.

    Raises:
        Checksum: it is too long.
    """
    most = _FREE_BYTES
    if os.fstat(descriptor).st_size > most:
        most += _BYTES_A_FILE * sum(len(files) for _, _, files in os.walk(folder))
    return read_descriptor(descriptor, folder / layout.MANIFEST, most_bytes=most)


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What no manifest says that imprompt wrote, in phrases."""
    named = {encoder.space for encoder in manifest.encoders[:1]} | {
        *manifest.indexes,
        *manifest.probes,
        *manifest.row_sums,
    }
    if not manifest.encoders or named - {*manifest.shards}:
        yield f"it names the spaces {sorted(named)} and has vectors of {sorted(manifest.shards)}"
    if manifest.version and not is_version(manifest.version):
        yield f"it calls itself {manifest.version[:60]!r}"
    for encoder in manifest.encoders:
        if (
            not 1 <= encoder.dim <= _MOST_DIM
            or not 0 <= encoder.max_tokens <= 1 << 32
            or not 0 <= encoder.batch_size <= 1 << 32
        ):
            yield f"its encoder {encoder.name[:60]!r} has {encoder.dim} dimensions and reads {encoder.max_tokens} tokens"
    records = [record for shards in manifest.shards.values() for record in shards]
    files = [
        *(record.file for record in records),
        *manifest.row_sums.values(),
        *(file for info in manifest.indexes.values() for file in info.all_files),
    ]
    wrong = next((file for file in (*files, *manifest.files) if not is_file_of_version(file)), None)
    if wrong is not None:
        yield f"no version has a file {wrong[:60]!r}"
    if len({*files}) != len(files) or (manifest.files and {*files} - {*manifest.files}):
        yield "it names a file twice, or one of whose bytes it says nothing"
    if any(record.rows * 2 > record.bytes for record in records):
        yield "a shard has more rows than bytes"
    if (
        _depth([manifest.plan, *(record.provenance for record in records)], _MOST_DEPTH + 1)
        > _MOST_DEPTH
    ):
        yield "it is nested too deep"


def _depth(value: Any, most: int) -> int:
    """How deep lists and mappings are nested; at most `most`."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (
        0
        if most == 0 or not isinstance(value, dict | list)
        else 1 + max((_depth(part, most - 1) for part in inner), default=0)
    )


def refuse_outdated(manifest: Manifest, folder: Path) -> None:
    """Raise `FormatVersion` where the version in `folder` has an index that is not read any more."""
    if manifest.outdated:
        major, minor = manifest.format
        raise FormatVersion(
            f"{folder} has an inverted file of format {major}.{minor}, which this version does not read.",
            hint="Give the `build-index` command again, with every corpus that was added since.",
        )


def sha256_bytes(content: bytes) -> str:
    """sha256 of `content`, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()
