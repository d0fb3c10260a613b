"""What becomes of a row before it is stored, and the funnel that counts it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from core.values import CorpusBatch, RawPrompt, RejectedRow, fold_text, prompt_key
from store.staged_prompts import CleanPrompt

CLEANING = "1: NFC, white space folded, exact duplicates folded"
"""Part of the plan; its number is raised with every change of what cleaning gives."""

READ = "read"
KEPT = "kept"
DUPLICATE = "duplicate"
REMOVED = "removed"

MAX_EXAMPLES = 10


class Tally(msgspec.Struct, frozen=True):
    """What one corpus gave so far: rows `read`, rejections by reason, and the first ten rejected rows."""

    read: int = 0
    reasons: dict[str, int] = {}
    examples: list[RejectedRow] = []

    def with_batch(self, batch: CorpusBatch) -> Tally:
        """The tally after one more batch."""
        reasons = Counter(self.reasons)
        reasons.update(reason_group(row.reason) for row in batch.rejected)
        return Tally(
            read=self.read + len(batch.prompts) + len(batch.rejected),
            reasons=dict(reasons),
            examples=[*self.examples, *batch.rejected][:MAX_EXAMPLES],
        )


def clean(raw: RawPrompt) -> CleanPrompt:
    """The prompt with what the encoder is to see, and its stable name; the text to show stays as it came."""
    folded = fold_text(raw.text)
    return CleanPrompt(prompt_key(folded), raw.text, folded, raw.source, raw.source_key, raw.n_submitted)


def reason_group(reason: str) -> str:
    """What a rejection is counted under: the phrase before a colon, behind which details may stand."""
    return reason.partition(":")[0]


def funnel(tallies: Iterable[Tally], *, kept: int, duplicates: int) -> dict[str, int]:
    """Rows by what became of them: read, then each reason of rejection, duplicate, kept; the rest adds up to read."""
    reasons: Counter[str] = Counter()
    read = 0
    for tally in tallies:
        read += tally.read
        reasons.update(tally.reasons)
    return {READ: read, **dict(sorted(reasons.items())), DUPLICATE: duplicates, KEPT: kept}
