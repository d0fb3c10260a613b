"""Duplicates among the staged prompts of a build: one prompt of each group is kept.

Equal prompts are dropped first, then near duplicates: each of those is near the prompt that is kept
for it, and no group loses all of its prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.indexer.cleaning_rules import Cleaning, Dropped
from imprompt.indexer.cleaning_stats import DUPLICATE, MAX_DROPPED, NEAR_DUPLICATE
from imprompt.indexer.scratch_arrays import Scratch
from imprompt.indexer.word_sets import Rows, WordSets, collect_word_sets, expanded
from imprompt.store.staged_prompts import DroppedPrompt, StagedPrompts

_READ_ROWS = 16_384
_CHUNK_ROWS = 8_192
_PAIRS_AT_ONCE = 250_000
_BUCKET_ROWS = 256
"""Kept rows of a bucket that a row is compared with.

Without a limit, a corpus of one template would take quadratic time.
"""


@dataclass(frozen=True, slots=True)
class DroppedDuplicates:
    """Which prompts are duplicates.

    `kept_by` holds for each different prompt the place of the one kept for it, or is None where
    near duplicates are not looked for; `examples` are the first prompts of either kind.
    """

    kept_by: Rows | None
    examples: list[Dropped]


def drop_duplicates(
    staged: StagedPrompts, cleaning: Cleaning, *, folder: Path, progress: Progress
) -> DroppedDuplicates:
    """Drop equal prompts, and near duplicates if the settings say so.

    The result depends on the staged prompts alone, so the call can be repeated.

    Args:
        folder: for temporary files.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    with progress.start("Dropping duplicates", None):
        n_submitted = staged.drop_equal()
        examples = [_example(row, DUPLICATE) for row in staged.equal_examples(MAX_DROPPED)]
    threshold = cleaning.near_duplicates
    if threshold is None:
        return DroppedDuplicates(None, examples)
    with Scratch(folder) as scratch:
        kept_by, sets = drop_near_duplicates(
            staged.embedded_texts(_READ_ROWS),
            n_submitted,
            scratch,
            threshold=threshold,
            settled=staged.n_settled,
            progress=progress,
        )
        if not cleaning.mark_near:
            places = np.flatnonzero(kept_by != np.arange(len(kept_by)))[:MAX_DROPPED]
            rows = staged.dropped_examples(places.tolist(), kept_by[places].tolist())
            similarities = sets.jaccard(places, kept_by[places]).tolist()
            examples += [
                _example(row, NEAR_DUPLICATE, similarity)
                for row, similarity in zip(rows, similarities, strict=True)
            ]
    return DroppedDuplicates(kept_by, examples)


def _example(row: DroppedPrompt, rule: str, similarity: float | None = None) -> Dropped:
    return Dropped(rule, row.source, row.source_key, row.text, row.kept_text, similarity)


def drop_near_duplicates(
    batches: Iterable[Sequence[str]],
    n_submitted: NDArray[np.int64],
    scratch: Scratch,
    *,
    threshold: float,
    settled: int = 0,
    progress: Progress = SILENT,
) -> tuple[Rows, WordSets]:
    """Find for each text the row that is kept for it: its own row number if it is kept itself.

    Rows are visited by most submissions, then by first row. A row is dropped in favour of the first
    kept row, in that order, whose word set has a Jaccard index of at least `threshold` with its
    set; if there is none, it is kept. So a dropped row is near its kept row directly, not through
    others. Pairs of exactly that index are found with a probability of .99, nearer ones with more;
    a text without words is near nothing.

    Args:
        batches: the texts, row by row, in batches of any size.
        n_submitted: (n,) how often each was submitted.
        scratch: holds the word sets and all else but 40 bytes a row.
        threshold: above 0, at most 1.
        settled: this many rows at the beginning come first and are always kept: those of an index
            that is being added to.

    Returns:
        (n,) int64 row numbers, and the word sets.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    with progress.start("Looking for near duplicates", None):
        sets = collect_word_sets(batches, scratch, threshold=threshold)
    order = np.arange(len(n_submitted), dtype=np.int64)
    order[settled:] = settled + np.argsort(-n_submitted[settled:], kind="stable")
    kept_by = np.arange(len(order), dtype=np.int64)
    kept = _KeptRows(sets, order, scratch)
    for start in range(0, settled, _CHUNK_ROWS):
        kept.add(np.arange(start, min(start + _CHUNK_ROWS, settled), dtype=np.int64))
    with progress.start("Dropping near duplicates", len(order) - settled) as task:
        for start in range(settled, len(order), _CHUNK_ROWS):
            places = np.arange(start, min(start + _CHUNK_ROWS, len(order)), dtype=np.int64)
            dropped = _nearest(kept.pairs(places), sets, order, threshold)
            left = places[~np.isin(places, [*dropped])]
            dropped |= _drop_in_order(_near_pairs(kept.pairs_within(left), sets, order, threshold))
            kept_by[order[[*dropped]]] = order[[*dropped.values()]]
            kept.add(places[~np.isin(places, [*dropped])])
            task.advance(len(places))
    return kept_by, sets


class _KeptRows:
    """The buckets with the places of the rows kept so far, in the order in which they were kept."""

    def __init__(self, sets: WordSets, order: Rows, scratch: Scratch) -> None:
        self._buckets = sets.buckets
        self._order = order
        self._starts = scratch.array(np.int64)
        self._counts = scratch.array(np.uint16)
        self._members = scratch.array(np.int32)
        room = 0
        self._starts.append(np.zeros(1, dtype=np.int64))
        for sizes in sets.bucket_sizes.blocks():
            ends = room + np.cumsum(np.minimum(sizes, _BUCKET_ROWS))
            self._starts.append(ends)
            room = int(ends[-1])
        self._counts.fill(len(sets.bucket_sizes), 0)
        self._members.fill(room, 0)

    def add(self, places: Rows) -> None:
        """Put newly kept rows into their buckets, as far as there is room."""
        members, buckets = self._entries(places)
        by_bucket = np.argsort(buckets, kind="stable")
        members, buckets = members[by_bucket], buckets[by_bucket]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        runs = np.diff(first, append=len(buckets))
        filled = buckets[first]
        starts, counts = self._starts.take(filled), self._counts.take(filled).astype(np.int64)
        sizes = self._starts.take(filled + 1) - starts
        slots = np.arange(len(buckets)) + np.repeat(counts - first, runs)
        fits = slots < np.repeat(sizes, runs)
        self._members.put((np.repeat(starts, runs) + slots)[fits], members[fits])
        self._counts.put(filled, np.minimum(counts + runs, sizes))

    def pairs(self, places: Rows) -> Iterator[tuple[Rows, Rows]]:
        """Yield (places, places of kept rows in a common bucket) in chunks; pairs may repeat."""
        members, buckets = self._entries(places)
        counts = self._counts.take(buckets).astype(np.int64)
        members, buckets, counts = members[counts > 0], buckets[counts > 0], counts[counts > 0]
        starts = self._starts.take(buckets)
        for part in _parts(counts):
            sizes = counts[part]
            others = self._members.take(expanded(starts[part], sizes))
            yield np.repeat(members[part], sizes), others.astype(np.int64)

    def pairs_within(self, places: Rows) -> Iterator[tuple[Rows, Rows]]:
        """Yield (places, earlier ones of them in a common bucket) in chunks; pairs may repeat."""
        members, buckets = self._entries(places)
        by_bucket = np.argsort(buckets, kind="stable")
        members, buckets = members[by_bucket], buckets[by_bucket]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        starts = np.repeat(first, np.diff(first, append=len(buckets)))
        sizes = np.minimum(np.arange(len(buckets)) - starts, _BUCKET_ROWS)
        for part in _parts(sizes):
            yield (
                np.repeat(members[part], sizes[part]),
                members[expanded(starts[part], sizes[part])],
            )

    def _entries(self, places: Rows) -> tuple[Rows, Rows]:
        """Return (place, bucket) of every bucket that these rows are in, by rising place."""
        rows = self._order[places]
        table = np.stack([band.take(rows) for band in self._buckets], axis=1)
        row, band = np.nonzero(table >= 0)
        return places[row], table[row, band].astype(np.int64)


def _parts(sizes: Rows) -> Iterator[slice]:
    """Yield consecutive slices, each of which adds up to about `_PAIRS_AT_ONCE`."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        reached = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, reached + _PAIRS_AT_ONCE, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


def _near_pairs(
    pairs: Iterable[tuple[Rows, Rows]], sets: WordSets, order: Rows, threshold: float
) -> list[tuple[Rows, Rows]]:
    """Return the pairs that are near each other, counted word by word."""
    near = []
    for place, other in pairs:
        possible = sets.may_reach(order[place], order[other], threshold)
        keys = np.unique((place[possible] << 32) | other[possible])
        place, other = keys >> 32, keys & 0xFFFFFFFF
        exact = sets.jaccard(order[place], order[other]) >= threshold
        near.append((place[exact], other[exact]))
    return near


def _nearest(
    pairs: Iterable[tuple[Rows, Rows]], sets: WordSets, order: Rows, threshold: float
) -> dict[int, int]:
    """Map each place that has a kept place near it to the first of those."""
    nearest: dict[int, int] = {}
    for places, others in _near_pairs(pairs, sets, order, threshold):
        for place, other in zip(places.tolist(), others.tolist(), strict=True):
            nearest[place] = min(other, nearest.get(place, other))
    return nearest


def _drop_in_order(near: Iterable[tuple[Rows, Rows]]) -> dict[int, int]:
    """Map each place to be dropped to the one kept for it.

    Args:
        near: all near pairs (place, earlier place) among undecided places.
    """
    nearby: dict[int, set[int]] = {}
    for places, others in near:
        for place, other in zip(places.tolist(), others.tolist(), strict=True):
            nearby.setdefault(place, set()).add(other)
    dropped: dict[int, int] = {}
    for place in sorted(nearby):
        kept = [other for other in nearby[place] if other not in dropped]
        if kept:
            dropped[place] = min(kept)
    return dropped
