"""Duplicates among the staged prompts of a build, and examples of what a build leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from imprompt.core.atomic_files import atomic_write
from imprompt.core.protocols import Progress
from imprompt.indexer.cleaning_rules import Cleaning, Dropped
from imprompt.indexer.cleaning_stats import (
    DUPLICATE,
    MAX_DROPPED,
    NEAR_DUPLICATE,
    first_of_each_rule,
)
from imprompt.indexer.near_duplicates import drop_near_duplicates
from imprompt.indexer.word_sets import Rows
from imprompt.store.staged_prompts import DroppedPrompt, StagedPrompts

_READ_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class DuplicateCounts:
    """For each different prompt the place of the one that stands for it (None where near duplicates are not looked for), and
    examples of what was folded."""

    stands_for: Rows | None
    examples: list[Dropped]


def drop_duplicates(
    staged: StagedPrompts, cleaning: Cleaning, *, progress: Progress
) -> DuplicateCounts:
    """Fold equal prompts, and near ones where the settings say so: a function of what is staged alone, which may be repeated."""
    with progress.start("DuplicateCounts duplicates", None):
        n_submitted = staged.drop_equal()
        examples = [_example(row, DUPLICATE, None) for row in staged.equal_examples(MAX_DROPPED)]
    threshold = cleaning.near_duplicates
    if threshold is None:
        return DuplicateCounts(None, examples)
    batches = staged.embedded_texts(_READ_ROWS)
    stands_for, sets = drop_near_duplicates(
        batches, n_submitted, threshold=threshold, settled=staged.n_settled, progress=progress
    )
    if not cleaning.mark_near:
        folded = np.flatnonzero(stands_for != np.arange(len(stands_for)))[:MAX_DROPPED]
        rows = staged.dropped_examples(folded.tolist(), stands_for[folded].tolist())
        likeness = sets.jaccard(folded, stands_for[folded]).tolist()
        examples += [
            _example(row, NEAR_DUPLICATE, alike) for row, alike in zip(rows, likeness, strict=True)
        ]
    return DuplicateCounts(stands_for, examples)


def write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """Write examples of what was left out as JSON lines, at most twenty a rule, whole or not at all.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    encoder = msgspec.json.Encoder()
    with atomic_write(path) as file:
        for rows in first_of_each_rule(dropped).values():
            for row in rows:
                file.write(encoder.encode(row) + b"\n")


def _example(row: DroppedPrompt, rule: str, likeness: float | None) -> Dropped:
    return Dropped(rule, row.source, row.source_key, row.text, row.kept_text, likeness)
