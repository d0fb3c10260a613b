"""The plan of a build: the value that fixes its result and names its staging folder.

Two builds of one plan give the same rows and, on one machine, the same bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from imprompt.core.errors import Checksum
from imprompt.core.values import EncoderSpec
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.store import layout
from imprompt.store.index_plan import DEFAULT_BUDGET_BYTES, read_factory
from imprompt.store.index_version import VersionFiles
from imprompt.store.manifest import CorpusInfo, Manifest
from imprompt.store.paths import hash_file

DEFAULT_SHARD_ROWS = 4096

ONLY_EQUAL = Cleaning(contacts=False, unsafe=False, near_duplicates=None)


# Unknown fields are refused so that no kind of plan is read as another.
class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the result depends on, and nothing else: no path, no time, no machine.

    Its sha256 names the staging folder, so the same command resumes its work and a changed input
    never resumes another's. `cleaning` applies to the rows of the corpora. `encoders[0]` is the
    space that is searched. With `index_factory` None, rows and memory budget decide the index type.
    """

    format: int = 2
    corpora: list[CorpusInfo]
    cleaning: Cleaning
    encoders: list[EncoderSpec]
    shard_rows: int
    index_factory: str | None
    memory_budget_bytes: int
    seed: int

    def canonical(self) -> bytes:
        """Return UTF-8 JSON with sorted keys and no white space: equal plans, equal bytes."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def sha256(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """Return the plan as plain JSON values, for the manifest."""
        values: dict[str, Any] = msgspec.json.decode(self.canonical())
        return values


class BuildPlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A build from corpora alone."""


class AddPlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of a base version, followed by those of further corpora.

    `corpora` lists those of the base, then the new ones; `base_sha256` is the hash of the base's
    manifest.
    """

    base_sha256: str


class RemovePlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of a base version without those that some rules match.

    Only the hash of the rules is stored: their text may be what has to disappear.
    """

    base_sha256: str
    rules_sha256: str


class DedupePlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of a base version, one for each group at or above a `cosine`."""

    base_sha256: str
    cosine: float


class ReindexPlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows and vectors of a base version, with an index that is made anew."""

    base_sha256: str
    reindex: bool = True


class _StoredSettings(msgspec.Struct):
    """The part of a manifest's plan that later plans inherit."""

    # Before cleaning had settings, it dropped equal prompts and no more.
    cleaning: Cleaning | str | None = None
    shard_rows: Annotated[int, msgspec.Meta(ge=1, le=1 << 32)] = DEFAULT_SHARD_ROWS
    index_factory: str | None = None
    memory_budget_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)] = DEFAULT_BUDGET_BYTES
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0


def plan_of(base: Manifest) -> Plan:
    """Return what a plan inherits from the version that it changes.

    Raises:
        Checksum: the manifest's plan has a value that no plan has.
        ConfigError: its index type is unknown.
    """
    try:
        stored = msgspec.convert(base.plan, _StoredSettings)
    except msgspec.ValidationError as error:
        path = Path(layout.MANIFEST)
        raise Checksum(
            f"The plan in {path} of {base.version} is invalid: {error}.",
            path=path,
            hint=layout.REBUILD,
        ) from error
    if stored.index_factory is not None:
        read_factory(stored.index_factory, dim=base.encoders[0].dim)
    return Plan(
        corpora=base.corpus,
        cleaning=stored.cleaning if isinstance(stored.cleaning, Cleaning) else ONLY_EQUAL,
        encoders=base.encoders,
        shard_rows=stored.shard_rows,
        index_factory=stored.index_factory,
        memory_budget_bytes=stored.memory_budget_bytes,
        seed=stored.seed,
    )


def inherited_fields(base: VersionFiles) -> dict[str, Any]:
    """Return the fields of a plan that changes a version: its own plan's and `base_sha256`.

    Raises:
        Checksum, ConfigError: see `plan_of`.
    """
    manifest_sha256 = hash_file(base.folder, layout.MANIFEST)[1]
    return msgspec.structs.asdict(plan_of(base.manifest)) | {"base_sha256": manifest_sha256}
