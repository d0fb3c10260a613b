"""The manifest of a version, `MANIFEST.json`: written last, read first.

A minor format may add fields, which older readers ignore; another major format is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from imprompt.core.errors import Checksum, FormatVersion, SpaceMismatch
from imprompt.core.values import EncoderSpec
from imprompt.store import layout
from imprompt.store.layout import REBUILD
from imprompt.store.paths import is_file_of_version, is_version, open_file, read_descriptor

FORMAT = (3, 1)

REBUILD_WITH = (
    "Build it again from all its corpora: imprompt build-index --replace --index FOLDER --corpus …"
)
"""The remedy for an index of an older format, as a hint."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
"""A number that a manifest claims; anything computed from it fits into 64 bits."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_RowId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
_Cosine = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_MOST_DIM = 1 << 16
_MOST_CHECK_QUERIES = 256
_MOST_DEPTH = 32
_FREE_BYTES = 4 << 20
_BYTES_A_FILE = 4096
"""A manifest needs about 700 bytes for each shard; one that is longer than this is refused."""


class CorpusInfo(msgspec.Struct, frozen=True):
    """A corpus of the index.

    `synthetic`: a program wrote its prompts; `origin`: the hub's data set and its commit.
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
    """A file of consecutive vectors.

    `file` is relative to the version, `provenance` says how the vectors were made. Two shards of
    equal plan and provenance have equal bytes; otherwise they agree to 1e-3, in bfloat16 to 2e-2.
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
    order, in `parts`, and `file` and the header are the first's. `check_queries_found` is how many
    check queries an inverted file finds by their codes in the two lists nearest to each; 0 for few.
    `sums` is the file of the sums of its lists, those of the first part first, or of a flat index's
    blocks of rows (see `imprompt.store.checksums`).
    """

    file: str
    factory: str
    effort: Share
    recall_at_10: Share
    header_bytes: Count
    header_sha256: Sha256
    sums: str
    parts: list[IndexPart] = []
    check_queries_found: Count = 0

    @property
    def files(self) -> list[str]:
        """The files that are searched, relative to the version, in row order."""
        return [part.file for part in self.parts] or [self.file]

    @property
    def all_files(self) -> list[str]:
        """`files`, and that of the sums."""
        return [*self.files, self.sums]


class CheckQuery(msgspec.Struct, frozen=True):
    """The exact answer to the stored vector of `row_id`: the nearest rows and their cosines."""

    row_id: _RowId
    ids: Annotated[list[_RowId], msgspec.Meta(max_length=_MOST_CHECK_QUERIES)]
    scores: Annotated[list[_Cosine], msgspec.Meta(max_length=_MOST_CHECK_QUERIES)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version: its sources, its content, and the sha256 of every file.

    `version`, `created` and `files` are filled in by `imprompt.store.publish.publish`.
    `encoders[0]` is the space that is searched. `funnel` counts corpus rows by their fate
    ("read", "kept", "duplicate", …). `row_sums` names the file of the sums of each space's rows
    (see `imprompt.store.checksums`). `parameters` counts the rows that have generation parameters;
    format 3.0 has none. `licence` is that of the prompts as the packer of an installed index states
    it, in words; "" where none is stated.
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
    check_queries: dict[
        str, Annotated[list[CheckQuery], msgspec.Meta(max_length=_MOST_CHECK_QUERIES)]
    ]
    row_sums: dict[str, str]
    parameters: Count = 0
    licence: str = ""
    version: str = ""
    created: str = ""
    files: dict[str, FileRecord] = {}

    @property
    def corpus_label(self) -> str:
        """The names of its corpora, each with a mark if a program wrote it."""
        return ", ".join(
            part.name + (" (synthetic)" if part.synthetic else "") for part in self.corpus
        )

    @property
    def n_bytes(self) -> int:
        """The length of all its files."""
        return sum(record.bytes for record in self.files.values())


class _FormatOnly(msgspec.Struct):
    format: tuple[int, int]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of `MANIFEST.json`: indented JSON with sorted keys and a final line feed."""
    return (
        msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"
    )


def decode_manifest(content: bytes, *, path: Path) -> Manifest:
    """Return the manifest in `content`, which was read from `path`.

    Raises:
        FormatVersion: it was written in another major format.
        Checksum: it is not a manifest: it names a space that it has no vectors of, a file that no
            version has, a number that none can be, or is nested too deep.
    """
    try:
        major, minor = msgspec.json.decode(content, type=_FormatOnly).format
        if major != FORMAT[0]:
            raise FormatVersion(
                f"{path.parent} is in format {major}.{minor}; this version of imprompt reads "
                f"format {FORMAT[0]}.x.",
                hint="Update imprompt." if major > FORMAT[0] else REBUILD_WITH,
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Checksum(f"{path} is not a manifest: {reason}.", path=path, hint=REBUILD) from error
    for reason in _contradictions(manifest):
        raise Checksum(f"{path} is not a manifest: {reason}.", path=path, hint=REBUILD)
    return manifest


def manifest_in(folder: Path) -> tuple[bytes, Manifest]:
    """Return (bytes, value) of the manifest of the version in a folder.

    Raises:
        FormatVersion, Checksum: as `decode_manifest`; also where it is not a regular file, or too
            long.
        OSError: it is missing, or cannot be read.
    """
    descriptor = open_file(folder, layout.MANIFEST)
    try:
        content = read_manifest(descriptor, folder)
    finally:
        os.close(descriptor)
    return content, decode_manifest(content, path=folder / layout.MANIFEST)


def read_manifest(descriptor: int, folder: Path) -> bytes:
    """Return the bytes of an open manifest; at most as many as the version's files can need.

    Raises:
        Checksum: it is too long.
    """
    most = _FREE_BYTES
    if os.fstat(descriptor).st_size > most:
        most += _BYTES_A_FILE * sum(len(files) for _, _, files in os.walk(folder))
    return read_descriptor(descriptor, folder / layout.MANIFEST, most_bytes=most)


def space_mismatch(manifest: Manifest, space: str, *, instead: str) -> SpaceMismatch:
    """Return the error for a space that a version does not have.

    Args:
        instead: what the user can do other than use the index's encoder.
    """
    encoder = manifest.encoders[0]
    return SpaceMismatch(
        f"The index holds vectors of the space {encoder.space}, made by {encoder.name}; "
        f"asked for was {space}.",
        expected=encoder.space,
        found=space,
        hint=f"Use --encoder {encoder.name}, or {instead}.",
    )


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Yield phrases for what cannot stand in a manifest that imprompt wrote."""
    named = {encoder.space for encoder in manifest.encoders[:1]} | {
        *manifest.indexes,
        *manifest.check_queries,
        *manifest.row_sums,
    }
    if not manifest.encoders or named - {*manifest.shards}:
        yield f"it names the spaces {sorted(named)} and has vectors of {sorted(manifest.shards)}"
    if {*manifest.shards} - {*manifest.row_sums}:
        yield f"it has vectors of {sorted(manifest.shards)} and sums of {sorted(manifest.row_sums)}"
    if manifest.version and not is_version(manifest.version):
        yield f"it calls itself {manifest.version[:60]!r}"
    for encoder in manifest.encoders:
        if (
            not 1 <= encoder.dim <= _MOST_DIM
            or not 0 <= encoder.max_tokens <= 1 << 32
            or not 0 <= encoder.batch_size <= 1 << 32
        ):
            yield (
                f"its encoder {encoder.name[:60]!r} has {encoder.dim} dimensions and reads "
                f"{encoder.max_tokens} tokens"
            )
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
    foreign = [manifest.plan, *(record.provenance for record in records)]
    if _is_deeper(foreign, _MOST_DEPTH):
        yield "it is nested too deep"


def _is_deeper(value: Any, depth: int) -> bool:
    """Return whether lists and mappings are nested more than `depth` levels deep."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(part, depth - 1) for part in inner)


def sha256_bytes(content: bytes) -> str:
    """Return the sha256 of `content`, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()
