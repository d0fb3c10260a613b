"""Near duplicates with everything in memory: what `imprompt.indexer.duplicates` must agree with.

It takes 770 bytes a row. The tests compare the two, and benchmarks/near_duplicates.py their time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.indexer.word_sets import Rows, _band_hashes, band_rows, expanded, words

CHUNK_ROWS = 8_192
PAIRS_AT_ONCE = 2_000_000
BUCKET_ROWS = 256
_LANES = 4
_MIX = np.uint64(0x9E3779B97F4A7C15)


class SetsInMemory:
    """The word sets of all texts, as numbers of the words, with the buckets of their bands."""

    def __init__(self, batches: Iterable[Sequence[str]], threshold: float) -> None:
        r = band_rows(threshold)
        numbers: dict[str, int] = {}
        ids, sizes = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.int64)]
        bits = [np.empty((0, _LANES), dtype=np.uint64)]
        bands = [np.empty((0, 80 // r), dtype=np.uint32)]
        for batch in batches:
            sets = [words(text) for text in batch]
            sizes.append(np.fromiter(map(len, sets), dtype=np.int64, count=len(sets)))
            keys = np.repeat(np.arange(len(sets), dtype=np.int64), sizes[-1]) << 32
            keys |= np.fromiter(
                (numbers.setdefault(word, len(numbers)) for each in sets for word in each),
                dtype=np.int64,
                count=len(keys),
            )
            keys.sort()
            ids.append((keys & 0xFFFFFFFF).astype(np.int32))
            bits.append(_bits(ids[-1], sizes[-1]))
            bands.append(_band_hashes(sets, r))
        all_sizes = np.concatenate(sizes)
        self.ids, self.bits = np.concatenate(ids), np.concatenate(bits)
        self.starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(all_sizes)])
        self.buckets, self.n_buckets = _buckets(np.concatenate(bands), all_sizes > 0)

    def may_reach(self, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
        a, b = self.bits[left], self.bits[right]
        size_a, size_b = self._sizes(left), self._sizes(right)
        common_bits = np.bitwise_count(a & b).sum(axis=1, dtype=np.int64)
        shared = np.minimum(
            size_a - np.bitwise_count(a).sum(axis=1), size_b - np.bitwise_count(b).sum(axis=1)
        ).astype(np.int64)
        common = np.minimum(common_bits + shared, np.minimum(size_a, size_b))
        return np.asarray(common / np.maximum(size_a + size_b - common, 1) >= threshold)

    def jaccard(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        pair_a, ids_a = self._gather(left)
        pair_b, ids_b = self._gather(right)
        keys_a, keys_b = (pair_a << 32) | ids_a, (pair_b << 32) | ids_b
        places = np.searchsorted(keys_b, keys_a)
        places[places == len(keys_b)] = 0
        hit = keys_b[places] == keys_a if len(keys_b) else np.zeros(len(keys_a), dtype=np.bool_)
        common = np.bincount(pair_a[hit], minlength=len(left))
        return np.asarray(common / np.maximum(self._sizes(left) + self._sizes(right) - common, 1))

    def _sizes(self, rows: Rows) -> Rows:
        sizes: Rows = self.starts[rows + 1] - self.starts[rows]
        return sizes

    def _gather(self, rows: Rows) -> tuple[Rows, Rows]:
        sizes = self._sizes(rows)
        pair = np.repeat(np.arange(len(rows), dtype=np.int64), sizes)
        return pair, self.ids[expanded(self.starts[rows], sizes)].astype(np.int64)


def _buckets(
    hashes: NDArray[np.uint32], usable: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], int]:
    rows = np.flatnonzero(usable)
    buckets = np.full(hashes.shape, -1, dtype=np.int32)
    n_buckets = 0
    for band in range(hashes.shape[1]):
        _, place, counts = np.unique(hashes[rows, band], return_inverse=True, return_counts=True)
        several = counts > 1
        numbers = np.where(several, np.cumsum(several) - 1 + n_buckets, -1).astype(np.int32)
        buckets[rows, band] = numbers[place]
        n_buckets += int(several.sum())
    return buckets, n_buckets


def _bits(ids: NDArray[np.int32], sizes: Rows) -> NDArray[np.uint64]:
    bits = np.zeros((len(sizes), _LANES), dtype=np.uint64)
    full = np.flatnonzero(sizes)
    if not len(full):
        return bits
    mixed = ids.astype(np.uint64) * _MIX
    masks = np.uint64(1) << (mixed >> np.uint64(58))
    lanes = (mixed >> np.uint64(40)) % np.uint64(_LANES)
    starts = (np.cumsum(sizes) - sizes)[full]
    for lane in range(_LANES):
        bits[full, lane] = np.bitwise_or.reduceat(
            np.where(lanes == lane, masks, np.uint64(0)), starts
        )
    return bits


def drop_in_memory(
    batches: Iterable[Sequence[str]],
    n_submitted: NDArray[np.int64],
    *,
    threshold: float,
    settled: int = 0,
    bucket_rows: int = BUCKET_ROWS,
    chunk_rows: int = CHUNK_ROWS,
    progress: Progress = SILENT,
) -> Rows:
    """Return what `drop_near_duplicates` must return."""
    with progress.start("Looking for near duplicates", None):
        sets = SetsInMemory(batches, threshold)
    later = np.lexsort((np.arange(len(n_submitted)), -n_submitted))
    order = np.concatenate([np.arange(settled, dtype=np.int64), later[later >= settled]])
    kept_by = np.arange(len(order), dtype=np.int64)
    kept = KeptInMemory(sets, order, bucket_rows)
    kept.add(np.arange(settled, dtype=np.int64))
    with progress.start("Dropping near duplicates", len(order) - settled) as task:
        for start in range(settled, len(order), chunk_rows):
            places = np.arange(start, min(start + chunk_rows, len(order)), dtype=np.int64)
            dropped: dict[int, int] = {}
            for place, other in _near(kept.pairs(places), sets, order, threshold):
                dropped[place] = min(other, dropped.get(place, other))
            left = places[~np.isin(places, [*dropped])]
            nearby: dict[int, set[int]] = {}
            for place, other in _near(kept.pairs_within(left), sets, order, threshold):
                nearby.setdefault(place, set()).add(other)
            for place in sorted(nearby):
                first = [other for other in nearby[place] if other not in dropped]
                if first:
                    dropped[place] = min(first)
            kept_by[order[[*dropped]]] = order[[*dropped.values()]]
            kept.add(places[~np.isin(places, [*dropped])])
            task.advance(len(places))
    return kept_by


class KeptInMemory:
    """The buckets with the places of the rows kept so far, in the order in which they were kept."""

    def __init__(self, sets: SetsInMemory, order: Rows, bucket_rows: int) -> None:
        self._buckets, self._order, self._bucket_rows = sets.buckets, order, bucket_rows
        sizes = np.zeros(sets.n_buckets, dtype=np.int64)
        for band in range(sets.buckets.shape[1]):
            column = sets.buckets[:, band]
            sizes += np.bincount(column[column >= 0], minlength=sets.n_buckets)
        self._sizes = np.minimum(sizes, bucket_rows)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._counts = np.zeros(sets.n_buckets, dtype=np.int64)
        self._members = np.empty(int(self._sizes.sum()), dtype=np.int32)

    def add(self, places: Rows) -> None:
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
        members, buckets = self._entries(places)
        by_bucket = np.argsort(buckets, kind="stable")
        members, buckets = members[by_bucket], buckets[by_bucket]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        starts = np.repeat(first, np.diff(first, append=len(buckets)))
        sizes = np.minimum(np.arange(len(buckets)) - starts, self._bucket_rows)
        for part in _parts(sizes):
            yield (
                np.repeat(members[part], sizes[part]),
                members[expanded(starts[part], sizes[part])],
            )

    def _entries(self, places: Rows) -> tuple[Rows, Rows]:
        table = self._buckets[self._order[places]]
        row, band = np.nonzero(table >= 0)
        return places[row], table[row, band].astype(np.int64)


def _parts(sizes: Rows) -> Iterator[slice]:
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        reached = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, reached + PAIRS_AT_ONCE, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


def _near(
    pairs: Iterable[tuple[Rows, Rows]], sets: SetsInMemory, order: Rows, threshold: float
) -> Iterator[tuple[int, int]]:
    for places, others in pairs:
        possible = sets.may_reach(order[places], order[others], threshold)
        keys = np.unique((places[possible] << 32) | others[possible])
        place, other = keys >> 32, keys & 0xFFFFFFFF
        exact = sets.jaccard(order[place], order[other]) >= threshold
        yield from zip(place[exact].tolist(), other[exact].tolist(), strict=True)
