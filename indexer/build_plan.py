"""What a build is going to do, as a value: two builds of one plan give the same rows and, on one machine, the same bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from imprompt.core.values import EncoderSpec
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.store.manifest import CorpusInfo

DEFAULT_SHARD_ROWS = 4096


class Plan(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):  # one kind is never read as another
    """Everything that the result depends on, and nothing else: no path, no time, no machine.

    Its sha256 names the staging folder, so the same command resumes itself and a changed input
    never resumes another's work. `cleaning` says by which rules the rows of the corpora go.
    `encoders[0]` is the space that is searched. Where `index_factory` is None, the kind of index is
    chosen by rows and budget.
    """

    format: int = 1
    corpora: list[CorpusInfo]
    cleaning: Cleaning
    encoders: list[EncoderSpec]
    shard_rows: int
    index_factory: str | None
    memory_budget_bytes: int
    seed: int

    def canonical(self) -> bytes:
        """UTF-8 JSON, keys sorted, no white space: equal plans have equal bytes."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def sha256(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """The plan as plain JSON values, for the manifest."""
        found: dict[str, Any] = msgspec.json.decode(self.canonical())
        return found


class BuildPlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A build from corpora alone."""


class AddPlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of another version, the manifest of which has the hash `base_sha256`, and those of further corpora.

    `corpora` are those of both, in that order.
    """

    base_sha256: str


class RemovePlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of another version without some of them.

    Args:
        base_sha256: of that version's manifest.
        rules_sha256: of the rules. They themselves are not written down: they may hold what is to
            be gone.
    """

    base_sha256: str
    rules_sha256: str


class DedupePlan(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of another version; those whose vectors have a cosine of at least `cosine` are folded into one."""

    base_sha256: str
    cosine: float
