"""Near duplicates: each is folded into a row that is kept and near to it.

One of each group is kept, never all, never none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.indexer.word_sets import Rows, WordSets, collect_word_sets, expanded

_CHUNK_ROWS = 8_192
_PAIRS_AT_ONCE = 2_000_000
_BUCKET_ROWS = 256
"""How many kept rows of a bucket a row is compared with; without a limit, a corpus of one template would take quadratic time."""


def drop_near_duplicates(
    batches: Iterable[Sequence[str]],
    n_submitted: NDArray[np.int64],
    *,
    threshold: float,
    settled: int = 0,
    progress: Progress = SILENT,
) -> tuple[Rows, WordSets]:
    """For each text the row that stands for it: its own number where it is kept.

    Rows are looked at by most submissions, then by first row. A row is folded into the first row of
    that order that was kept and whose word set has a Jaccard index of at least `threshold` with its
    own; where there is none, it is kept. So a folded row is near its kept row itself, not through
    others. Pairs of just that index are found with a probability of .99, nearer ones with more; a
    text without words is near to nothing.

    Args:
        batches: the texts, row by row, in batches of any size.
        n_submitted: (n,) how often each was submitted.
        threshold: above 0, at most 1.
        settled: so many rows at the beginning are kept whatever is near them, and come before all
            others: those of an index that is added to.

    Returns:
        (n,) int64 row numbers, and the word sets.
    """
    with progress.start("Looking for near duplicates", None):
        sets = collect_word_sets(batches, threshold=threshold)
    later = np.lexsort((np.arange(len(n_submitted)), -n_submitted))
    order = np.concatenate([np.arange(settled, dtype=np.int64), later[later >= settled]])
    kept_by = np.arange(len(order), dtype=np.int64)
    kept = _KeptRows(sets, order)
    kept.add(np.arange(settled, dtype=np.int64))
    with progress.start("DuplicateCounts near duplicates", len(order) - settled) as task:
        for start in range(settled, len(order), _CHUNK_ROWS):
            places = np.arange(start, min(start + _CHUNK_ROWS, len(order)), dtype=np.int64)
            found = _nearest(kept.pairs(places), sets, order, threshold)
            left = places[~np.isin(places, [*found])]
            found |= _fold_in_order(_edges(kept.pairs_within(left), sets, order, threshold))
            kept_by[order[[*found]]] = order[[*found.values()]]
            kept.add(places[~np.isin(places, [*found])])
            task.advance(len(places))
    return kept_by, sets


class _KeptRows:
    """The buckets, each with the places of the rows that are kept so far, in the order in which they were kept."""

    def __init__(self, sets: WordSets, order: Rows) -> None:
        self._buckets = sets.buckets
        self._order = order
        sizes = np.zeros(sets.n_buckets, dtype=np.int64)
        for band in range(sets.buckets.shape[1]):
            column = sets.buckets[:, band]
            sizes += np.bincount(column[column >= 0], minlength=sets.n_buckets)
        self._sizes = np.minimum(sizes, _BUCKET_ROWS)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._counts = np.zeros(sets.n_buckets, dtype=np.int64)
        self._members = np.empty(int(self._sizes.sum()), dtype=np.int32)

    def add(self, places: Rows) -> None:
        """Put newly kept rows into their buckets, where there is room."""
        members, buckets = self._entries(places)
        by_bucket = np.argsort(buckets, kind="stable")
        members, buckets = members[by_bucket], buckets[by_bucket]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        runs = np.diff(first, append=len(buckets))
        slots = self._counts[buckets] + np.arange(len(buckets)) - np.repeat(first, runs)
        fits = slots < self._sizes[buckets]
        self._members[self._starts[buckets[fits]] + slots[fits]] = members[fits]
        self._counts[buckets[first]] = np.minimum(
            self._counts[buckets[first]] + runs, self._sizes[buckets[first]]
        )

    def pairs(self, places: Rows) -> Iterator[tuple[Rows, Rows]]:
        """(place, place of a kept row that shares a bucket with it), a bounded number at once; pairs may repeat."""
        members, buckets = self._entries(places)
        counts = self._counts[buckets]
        members, buckets, counts = members[counts > 0], buckets[counts > 0], counts[counts > 0]
        for part in _parts(counts):
            sizes = counts[part]
            yield (
                np.repeat(members[part], sizes),
                self._members[expanded(self._starts[buckets[part]], sizes)].astype(np.int64),
            )

    def pairs_within(self, places: Rows) -> Iterator[tuple[Rows, Rows]]:
        """(place, earlier place) of these rows that share a bucket with each other, a bounded number at once; pairs may repeat."""
        members, buckets = self._entries(places)
        by_bucket = np.argsort(buckets, kind="stable")
        members, buckets = members[by_bucket], buckets[by_bucket]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        before = np.arange(len(buckets)) - np.repeat(first, np.diff(first, append=len(buckets)))
        starts = np.repeat(first, np.diff(first, append=len(buckets)))
        sizes = np.minimum(before, _BUCKET_ROWS)
        for part in _parts(sizes):
            yield (
                np.repeat(members[part], sizes[part]),
                members[expanded(starts[part], sizes[part])],
            )

    def _entries(self, places: Rows) -> tuple[Rows, Rows]:
        """(place, bucket) of every bucket that these rows are in, by rising place."""
        table = self._buckets[self._order[places]]
        row, band = np.nonzero(table >= 0)
        return places[row], table[row, band].astype(np.int64)


def _parts(sizes: Rows) -> Iterator[slice]:
    """Consecutive slices of which each adds up to about `_PAIRS_AT_ONCE`."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        reached = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, reached + _PAIRS_AT_ONCE, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


def _edges(
    pairs: Iterable[tuple[Rows, Rows]], sets: WordSets, order: Rows, threshold: float
) -> list[tuple[Rows, Rows]]:
    """The pairs that are near each other, counted word by word."""
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
    """For each place that has one, the first of the kept places near it."""
    found: dict[int, int] = {}
    for places, others in _edges(pairs, sets, order, threshold):
        for place, other in zip(places.tolist(), others.tolist(), strict=True):
            found[place] = min(other, found.get(place, other))
    return found


def _fold_in_order(edges: Iterable[tuple[Rows, Rows]]) -> dict[int, int]:
    """Which places are folded, and into which, where `edges` (place, earlier place) are all nearnesses among undecided places."""
    nearby: dict[int, set[int]] = {}
    for places, others in edges:
        for place, other in zip(places.tolist(), others.tolist(), strict=True):
            nearby.setdefault(place, set()).add(other)
    folded: dict[int, int] = {}
    for place in sorted(nearby):
        kept = [other for other in nearby[place] if other not in folded]
        if kept:
            folded[place] = min(kept)
    return folded
