"""What became of the rows of a corpus, counted: the funnel. Pure."""

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
"""Examples that are kept of what each rule left out."""

_EXAMPLE_CHARACTERS = 2_000


class CleaningStats(msgspec.Struct, frozen=True):
    """What one corpus gave so far: rows `read`, those left out by reason, the first ten that could not be read, and the first
    twenty that each rule left out."""

    read: int = 0
    reasons: dict[str, int] = {}
    examples: list[RejectedRow] = []
    dropped: dict[str, list[Dropped]] = {}

    @classmethod
    def of(cls, batch: CorpusBatch, dropped: Sequence[Dropped]) -> CleaningStats:
        """The tally of one batch, of which the rules left out `dropped`."""
        reasons = Counter(reason_group(row.reason) for row in batch.rejected)
        reasons.update(row.rule for row in dropped)
        return cls(
            read=len(batch.prompts) + len(batch.rejected),
            reasons=dict(reasons),
            examples=list(batch.rejected[:MAX_EXAMPLES]),
            dropped=first_of_each_rule(dropped),
        )

    def joined(self, other: CleaningStats) -> CleaningStats:
        """The tally of these rows and of those behind them."""
        reasons = Counter(self.reasons)
        reasons.update(other.reasons)
        return CleaningStats(
            read=self.read + other.read,
            reasons=dict(reasons),
            examples=[*self.examples, *other.examples][:MAX_EXAMPLES],
            dropped=first_of_each_rule(
                row for tally in (self, other) for rows in tally.dropped.values() for row in rows
            ),
        )


def first_of_each_rule(dropped: Iterable[Dropped]) -> dict[str, list[Dropped]]:
    """The first twenty of each rule, long texts cut."""
    found: dict[str, list[Dropped]] = {}
    for row in dropped:
        rows = found.setdefault(row.rule, [])
        if len(rows) < MAX_DROPPED:
            rows.append(msgspec.structs.replace(row, text=row.text[:_EXAMPLE_CHARACTERS]))
    return found


def reason_group(reason: str) -> str:
    """What a rejection is counted under: the phrase before a colon, behind which details may stand."""
    return reason.partition(":")[0]


def funnel(
    tallies: Iterable[CleaningStats], *, kept: int, folded: dict[str, int]
) -> dict[str, int]:
    """Rows by what became of them: read, then each reason for leaving one out, those folded, kept; the rest adds up to read."""
    reasons: Counter[str] = Counter()
    read = 0
    for tally in tallies:
        read += tally.read
        reasons.update(tally.reasons)
    return {READ: read, **dict(sorted(reasons.items())), **folded, KEPT: kept}


def joined_funnel(before: Mapping[str, int], added: Mapping[str, int]) -> dict[str, int]:
    """The funnel of an index that was added to: what was kept is that of all, the rest adds up."""
    names = dict.fromkeys([READ, *sorted({*before, *added} - {READ, KEPT})])
    return {**{name: before.get(name, 0) + added.get(name, 0) for name in names}, KEPT: added[KEPT]}
