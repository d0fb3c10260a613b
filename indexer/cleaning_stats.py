"""Counts of what became of the rows of a corpus: the funnel of a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from imprompt.core.values import CorpusBatch, RejectedRow
from imprompt.indexer.cleaning_rules import Dropped

READ = "read"
KEPT = "kept"
DUPLICATE = "duplicate"
REMOVED = "removed"
NEAR_DUPLICATE = "near duplicate"
SEMANTIC_DUPLICATE = "semantic duplicate"

MAX_EXAMPLES = 10
MAX_DROPPED = 20
"""Examples kept of the prompts that each rule dropped."""

_EXAMPLE_CHARACTERS = 2_000


class CleaningStats(msgspec.Struct, frozen=True):
    """The counts of a corpus so far.

    Attributes:
        read: rows.
        reasons: rows left out, by reason.
        examples: the first ten rows that could not be read.
        dropped: the first twenty prompts that each rule dropped.
    """

    read: int = 0
    reasons: dict[str, int] = {}
    examples: list[RejectedRow] = []
    dropped: dict[str, list[Dropped]] = {}

    @classmethod
    def of(cls, batch: CorpusBatch, dropped: Sequence[Dropped]) -> CleaningStats:
        """Count a batch, of which the rules left out `dropped`."""
        reasons = Counter(reason_group(row.reason) for row in batch.rejected)
        reasons.update(row.rule for row in dropped)
        return cls(
            read=len(batch.prompts) + len(batch.rejected),
            reasons=dict(reasons),
            examples=list(batch.rejected[:MAX_EXAMPLES]),
            dropped=first_of_each_rule(dropped),
        )

    def joined(self, other: CleaningStats) -> CleaningStats:
        """Return the counts of these rows and of `other`, which follow them."""
        reasons = Counter(self.reasons)
        reasons.update(other.reasons)
        return CleaningStats(
            read=self.read + other.read,
            reasons=dict(reasons),
            examples=[*self.examples, *other.examples][:MAX_EXAMPLES],
            dropped=first_of_each_rule(
                row for stats in (self, other) for rows in stats.dropped.values() for row in rows
            ),
        )


def first_of_each_rule(dropped: Iterable[Dropped]) -> dict[str, list[Dropped]]:
    """Return the first twenty of each rule, long texts truncated."""
    examples: dict[str, list[Dropped]] = {}
    for row in dropped:
        rows = examples.setdefault(row.rule, [])
        if len(rows) < MAX_DROPPED:
            rows.append(msgspec.structs.replace(row, text=row.text[:_EXAMPLE_CHARACTERS]))
    return examples


def reason_group(reason: str) -> str:
    """Return what a rejection is counted under: the part of its reason before a colon."""
    return reason.partition(":")[0]


def funnel(
    corpora: Iterable[CleaningStats], *, kept: int, duplicates: dict[str, int]
) -> dict[str, int]:
    """Return rows by outcome: read, left out for each reason, duplicates, kept.

    The other counts sum to `read`.
    """
    reasons: Counter[str] = Counter()
    read = 0
    for stats in corpora:
        read += stats.read
        reasons.update(stats.reasons)
    return {READ: read, **dict(sorted(reasons.items())), **duplicates, KEPT: kept}


def joined_funnel(before: Mapping[str, int], added: Mapping[str, int]) -> dict[str, int]:
    """Return the funnel of an index after an addition: `added` counts what was kept in all."""
    names = dict.fromkeys([READ, *sorted({*before, *added} - {READ, KEPT})])
    return {**{name: before.get(name, 0) + added.get(name, 0) for name in names}, KEPT: added[KEPT]}
