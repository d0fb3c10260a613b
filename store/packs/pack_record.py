"""What a pack says of itself, `PACK.json`: its first member."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from imprompt.core.errors import Checksum, ConfigError, FormatVersion
from imprompt.core.values import EncoderSpec
from imprompt.store.index_plan import FLAT
from imprompt.store.manifest import FileRecord, Manifest, decode_manifest, sha256_bytes

PACK_FORMAT = (1, 0)
INT8_FORMAT = (2, 0)
"""The format of a pack whose vectors are int8, which earlier releases cannot read."""
RECORD = "PACK.json"
CARD = "README.md"
PROMPT_LINES = "prompts.jsonl"
FRAMES = ".zst"
"""The ending of a member that holds `imprompt.store.packs.frames`: all but the first two."""

_FREE_BYTES = 4 << 20
_RECORD_SHARE = 256
"""A pack is at least so many times as long as its record, beyond `_FREE_BYTES`: 3,000 times where
a shard has 4,096 rows of 384 values."""

_MOST_EXPANSION = 50
_FREE_EXPANDED_BYTES = 64 << 20


class PackRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a pack holds, and length and hash of each member when expanded.

    `manifest` names no version, no time and no files: they come with publishing. `without` says
    what of the packed version was left out, in words, and `left_out` lists the encoders of spaces
    that were.
    """

    pack_format: tuple[int, int] = PACK_FORMAT
    licence: str
    without: list[str]
    left_out: list[EncoderSpec]
    manifest: Manifest
    members: dict[str, FileRecord]

    @property
    def int8(self) -> bool:
        """Whether the members hold the vectors as int8."""
        return self.pack_format[0] == INT8_FORMAT[0]

    @property
    def n_bytes(self) -> int:
        """The length of all its members when expanded."""
        return sum(record.bytes for record in self.members.values())

    @property
    def sha256(self) -> str:
        """64 hex digits that name the content of the pack."""
        return sha256_bytes(encode_record(self))


class _Raw(msgspec.Struct):
    pack_format: tuple[int, int]
    manifest: msgspec.Raw = msgspec.Raw(b"{}")
    licence: str = ""
    without: list[str] = []
    left_out: list[EncoderSpec] = []
    members: dict[str, FileRecord] = {}


def encode_record(record: PackRecord) -> bytes:
    """Return the bytes of `PACK.json`: indented JSON with sorted keys and a final line feed."""
    encoded = msgspec.json.encode(record, order="deterministic")
    return msgspec.json.format(encoded, indent=2) + b"\n"


def decode_record(content: bytes, *, path: Path) -> PackRecord:
    """Return the record in `content`, of the pack `path`.

    Raises:
        FormatVersion: pack or index are of another major format.
        Checksum: it is no record: its manifest cannot be one, or its members are not those that a
            pack of it has.
    """
    place = path / RECORD
    try:
        raw = msgspec.json.decode(content, type=_Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Checksum(f"{place} is not that of a pack: {reason}.", path=path) from error
    major, minor = raw.pack_format
    if major not in (PACK_FORMAT[0], INT8_FORMAT[0]):
        raise FormatVersion(
            f"{path} is a pack of format {major}.{minor}; this version of imprompt reads "
            f"{PACK_FORMAT[0]}.x and {INT8_FORMAT[0]}.x.",
            hint="Update imprompt." if major > INT8_FORMAT[0] else "Pack the index again.",
        )
    int8 = major == INT8_FORMAT[0]
    manifest = decode_manifest(bytes(raw.manifest), path=place)
    if manifest.version or manifest.created or manifest.files:
        raise Checksum(f"{place} is not that of a pack: it names a version.", path=path)
    if list(raw.members) != sorted(member_names(manifest, int8=int8)) or not (
        int8
        or all(
            raw.members[shard.file] == FileRecord(shard.bytes, shard.sha256)
            for shards in manifest.shards.values()
            for shard in shards
        )
    ):
        raise Checksum(f"{place} lists other files than a pack of its manifest has.", path=path)
    return PackRecord(
        pack_format=raw.pack_format,
        licence=raw.licence,
        without=raw.without,
        left_out=raw.left_out,
        manifest=manifest,
        members=raw.members,
    )


def int8_member(file: str) -> str:
    """Return the name of the member that holds a shard as int8."""
    return f"{file.removesuffix('.npy')}.int8.npy"


def member_names(manifest: Manifest, *, int8: bool = False) -> list[str]:
    """Return what a pack holds besides its record, without the endings of compressed members.

    Sums of rows, and an index that is only a copy of the vectors, are made again by whoever
    installs it.
    """
    shards = [shard.file for shards in manifest.shards.values() for shard in shards]
    indexes = [
        file
        for info in manifest.indexes.values()
        if info.factory != FLAT
        for file in info.all_files
    ]
    return [CARD, PROMPT_LINES, *(map(int8_member, shards) if int8 else shards), *indexes]


def most_record_bytes(pack_bytes: int) -> int:
    """Return how long the record of a pack of this length may be."""
    return _FREE_BYTES + pack_bytes // _RECORD_SHARE


def most_expanded_bytes(pack_bytes: int) -> int:
    """Return what a pack of this length may expand to; an honest one has at most ten times."""
    return max(_FREE_EXPANDED_BYTES, _MOST_EXPANSION * pack_bytes)


def reduced(manifest: Manifest, spaces: Sequence[str], *, sources: bool) -> Manifest:
    """Return the manifest that a pack holds of a version.

    Args:
        manifest: of the version.
        spaces: those that are kept, by name or by encoder; all where there are none.
        sources: whether the corpora keep their names.

    Raises:
        ConfigError: a space is unknown, or the one that is searched is not among them.
    """
    kept = _kept_spaces(manifest, spaces)
    corpus = [
        part if sources else msgspec.structs.replace(part, name=f"corpus {number}")
        for number, part in enumerate(manifest.corpus, start=1)
    ]
    plan: dict[str, Any] = {**manifest.plan}
    if (encoders := plan_encoders(plan)) is not None:
        plan["encoders"] = [each for each in encoders if each.get("space") in kept]
    if "corpora" in plan:
        plan["corpora"] = msgspec.to_builtins(corpus)
    same = plan == manifest.plan
    return msgspec.structs.replace(
        manifest,
        version="",
        created="",
        files={},
        plan=plan,
        plan_sha256=manifest.plan_sha256 if same else sha256_bytes(canonical_plan(plan)),
        corpus=corpus,
        encoders=[encoder for encoder in manifest.encoders if encoder.space in kept],
        shards={space: manifest.shards[space] for space in kept},
        row_sums={space: manifest.row_sums[space] for space in kept},
        parameters=manifest.parameters if sources else 0,
    )


def plan_encoders(plan: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the encoders of a plan, which may come from anybody; None where it has none."""
    found = plan.get("encoders")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return None
    return found


def canonical_plan(plan: dict[str, Any]) -> bytes:
    """Return a plan as `imprompt.indexer.build_plan.Plan.canonical` does."""
    return msgspec.json.encode(plan, order="sorted")


def _kept_spaces(manifest: Manifest, wanted: Sequence[str]) -> list[str]:
    named = {encoder.name: encoder.space for encoder in manifest.encoders}
    if not wanted:
        return [*manifest.shards]
    kept = {named.get(name, name) for name in wanted}
    known = ", ".join(f"{encoder.name} ({encoder.space})" for encoder in manifest.encoders)
    if unknown := kept - {*manifest.shards}:
        raise ConfigError(
            f"The index has no space {sorted(unknown)[0]!r}.", hint=f"It has {known}."
        )
    searched = manifest.encoders[0]
    if searched.space not in kept:
        raise ConfigError(
            f"A pack without {searched.name} ({searched.space}) could not be searched.",
            hint=f"Name it with --space, too: --space {searched.name}",
        )
    return [space for space in manifest.shards if space in kept]
