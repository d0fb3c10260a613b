"""What a generation says of itself: `MANIFEST.json`, written last, read first.

A minor version may add fields, which older readers ignore; a newer major version is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from core.errors import Checksum, FormatVersion
from core.values import EncoderSpec

FORMAT = (2, 0)
"""1.1 added `n_folded` to the prompts, 1.2 indexes of several files; 2.0 laid an inverted file's lists out anew."""

_LISTS_MOVED = (2, 0)

_HINT = "Build the index again."


class CorpusInfo(msgspec.Struct, frozen=True):
    """A corpus that went in; `synthetic` where a program wrote its prompts, `origin` the hub's data set and its commit."""

    name: str
    fingerprint: str
    synthetic: bool = False
    origin: str = ""


class FileRecord(msgspec.Struct, frozen=True):
    """Length and sha256 (64 hex digits) of a file."""

    bytes: int
    sha256: str


class ShardRecord(msgspec.Struct, frozen=True):
    """A file of consecutive vectors; `file` is relative to the generation, `provenance` says how they were made.

    Two shards of equal plan and provenance have equal bytes; otherwise they agree to 1e-3.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    provenance: dict[str, Any] = {}


class IndexPart(msgspec.Struct, frozen=True):
    """One file of an index, over `rows` consecutive rows.

    The first `header_bytes` of the file are all that FAISS interprets (the rest are codes, of which any value is valid): they
    are compared with `header_sha256` before FAISS reads them.
    """

    file: str
    rows: int
    header_bytes: int
    header_sha256: str


class IndexInfo(msgspec.Struct, frozen=True):
    """A FAISS index and what was measured of it.

    `recall_at_10` was measured with `effort` against the exact answer. `header_bytes` and `header_sha256` are those of
    `IndexPart`. An index of several files lists all of them, in row order, in `parts`, and `file` and the header are the first's.
    `probes_found` is how many probes an inverted file finds by their codes in the two lists that are nearest to each; 0 for few.
    """

    file: str
    factory: str
    effort: float
    recall_at_10: float
    header_bytes: int
    header_sha256: str
    parts: list[IndexPart] = []
    probes_found: int = 0

    @property
    def files(self) -> list[str]:
        """All of its files, relative to the generation."""
        return [part.file for part in self.parts] or [self.file]


class Probe(msgspec.Struct, frozen=True):
    """The exact answer to the stored vector of `row_id`: the nearest rows (itself among them) and their cosines."""

    row_id: int
    ids: list[int]
    scores: list[float]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One generation: from what it was built, what it holds, and the sha256 of every file.

    `generation`, `created` and `files` are filled in by `store.publish.publish`. `encoders[0]` is the space that is searched.
    `funnel` counts corpus rows by what became of them ("read", "kept", "duplicate", …).
    """

    format: tuple[int, int] = FORMAT
    imprompt: str
    plan_sha256: str
    plan: dict[str, Any]
    rows: int
    rows_digest: str
    corpus: list[CorpusInfo]
    funnel: dict[str, int]
    encoders: list[EncoderSpec]
    shards: dict[str, list[ShardRecord]]
    indexes: dict[str, IndexInfo]
    probes: dict[str, list[Probe]]
    generation: str = ""
    created: str = ""
    files: dict[str, FileRecord] = {}

    @property
    def outdated(self) -> bool:
        """Whether its index is one that is not read any more: an inverted file of an older format."""
        return self.format < _LISTS_MOVED and any(info.factory.startswith("IVF") for info in self.indexes.values())


class _FormatOnly(msgspec.Struct):
    format: tuple[int, int]


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of `MANIFEST.json`: indented JSON, keys of mappings sorted, one line feed at the end."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def decode_manifest(content: bytes, *, path: Path) -> Manifest:
    """The manifest in `content`, which was read from `path`.

    Raises:
        FormatVersion: it was written in a newer major format.
        Checksum: it is not a manifest, or names a space that it has no vectors of.
    """
    try:
        found = msgspec.json.decode(content, type=_FormatOnly).format
        if found[0] > FORMAT[0]:
            raise FormatVersion(
                f"{path.parent} is in format {found[0]}.{found[1]}; this version reads formats up to {FORMAT[0]}.x.",
                hint="Update imprompt, or build the index again with this version.",
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Checksum(f"{path} is not a manifest: {error}.", path=path, hint=_HINT) from error
    named = {encoder.space for encoder in manifest.encoders[:1]} | {*manifest.indexes, *manifest.probes}
    if not manifest.encoders or named - {*manifest.shards}:
        reason = f"it names the spaces {sorted(named)} and has vectors of {sorted(manifest.shards)}"
        raise Checksum(f"{path} is not a manifest: {reason}.", path=path, hint=_HINT)
    return manifest


def refuse_outdated(manifest: Manifest, folder: Path) -> None:
    """Raise `FormatVersion` where the generation in `folder` has an index that is not read any more."""
    if manifest.outdated:
        major, minor = manifest.format
        raise FormatVersion(
            f"{folder} has an inverted file of format {major}.{minor}, which this version does not read.",
            hint="Give the `build-index` command again, with every corpus that was added since.",
        )


def sha256_bytes(content: bytes) -> str:
    """sha256 of `content`, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()
