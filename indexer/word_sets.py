"""Prompts as sets of words: how similar two of them are, and which are worth comparing.

The similarity of two texts is the Jaccard index of their word sets: words in both, divided by words
in either. MinHash signatures, cut into bands, put similar texts into a common bucket with high
probability (Broder 1997; banding as in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
3.4); texts that share a bucket are compared word by word, by the 64-bit hashes of the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from imprompt.indexer.scratch_arrays import Scratch, ScratchArray

Rows: TypeAlias = NDArray[np.int64]

_PERMUTATIONS = 80
_SEED = 7
_RECALL = 0.99
_LANES = 4
_SORTED_AT_ONCE = 1 << 24
_MIX = np.uint64(0x9E3779B97F4A7C15)
# Kana and Han: no spaces between words.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def word_list(text: str) -> list[str]:
    """Return the words of a text in lower case; each Han or Kana sign counts as a word."""
    return _WORD.findall(text.lower())


def words(text: str) -> set[str]:
    """Return the different words of a text, as `word_list` finds them."""
    return set(word_list(text))


def band_rows(threshold: float) -> int:
    """Return how many of the 80 signature values make a band.

    It is the largest r for which two texts of exactly that Jaccard index share a band with
    probability .99, that is 1 - (1 - threshold^r)^(80 // r) >= .99.
    """
    fitting = [
        r
        for r in range(1, _PERMUTATIONS + 1)
        if 1 - (1 - threshold**r) ** (_PERMUTATIONS // r) >= _RECALL
    ]
    return max(fitting, default=1)


@dataclass(frozen=True, slots=True)
class WordSets:
    """The word sets of n texts, by row, in scratch arrays.

    `hashes` are those of the words of all rows, rising within a row; row i has
    `hashes[starts[i]:starts[i + 1]]`. `bits` (n, 4) uint64 has one of 256 bits set for each word.
    `buckets` holds for each band (n,) int32: rows with the same number share that band; -1 where a
    row shares it with no other. No bucket number is in two bands. `bucket_sizes` (n_buckets,) int64
    are the numbers of rows in them.
    """

    hashes: ScratchArray
    starts: ScratchArray
    bits: ScratchArray
    buckets: Sequence[ScratchArray]
    bucket_sizes: ScratchArray

    def may_reach(self, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
        """Return False for pairs that are certain to be below `threshold`, by sizes and bits."""
        a, b = self.bits.take(left), self.bits.take(right)
        size_a, size_b = self._sizes(left), self._sizes(right)
        common_bits = np.bitwise_count(a & b).sum(axis=1, dtype=np.int64)
        # Two words may share a bit, at most as often as the row with fewer such words has them.
        shared = np.minimum(
            size_a - np.bitwise_count(a).sum(axis=1), size_b - np.bitwise_count(b).sum(axis=1)
        ).astype(np.int64)
        common = np.minimum(common_bits + shared, np.minimum(size_a, size_b))
        return np.asarray(common / np.maximum(size_a + size_b - common, 1) >= threshold)

    def jaccard(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """Return the Jaccard index of each pair of rows, exact unless hashes collide."""
        sizes_a, sizes_b = self._sizes(left), self._sizes(right)
        ends_b = np.cumsum(sizes_b)
        pair = np.repeat(np.arange(len(left), dtype=np.int64), sizes_a)
        found = _found(
            self._hashes(left, sizes_a),
            self._hashes(right, sizes_b),
            (ends_b - sizes_b)[pair],
            ends_b[pair],
        )
        common = np.bincount(pair[found], minlength=len(left))
        return np.asarray(common / np.maximum(sizes_a + sizes_b - common, 1))

    def _sizes(self, rows: Rows) -> Rows:
        sizes: Rows = self.starts.take(rows + 1) - self.starts.take(rows)
        return sizes

    def _hashes(self, rows: Rows, sizes: Rows) -> Rows:
        return self.hashes.take(expanded(self.starts.take(rows), sizes))


def expanded(starts: Rows, sizes: Rows) -> Rows:
    """Return starts[0], starts[0] + 1, … (sizes[0] of them), then starts[1], and so on."""
    before = np.cumsum(sizes) - sizes
    flat: Rows = np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(starts - before, sizes)
    return flat


def _found(values: Rows, table: Rows, starts: Rows, stops: Rows) -> NDArray[np.bool_]:
    """Tell which values are in the table, each between its own start and stop, where it rises."""
    if not len(table):
        return np.zeros(len(values), dtype=np.bool_)
    low, high = starts, stops
    while (searching := low < high).any():
        middle = (low + high) // 2
        below = table[np.minimum(middle, len(table) - 1)] < values
        low = np.where(searching & below, middle + 1, low)
        high = np.where(searching & ~below, middle, high)
    return np.asarray((low < stops) & (table[np.minimum(low, len(table) - 1)] == values))


def collect_word_sets(
    batches: Iterable[Sequence[str]], scratch: Scratch, *, threshold: float
) -> WordSets:
    """Return the word sets of all texts, with buckets for a Jaccard index of `threshold` or more.

    Takes 40 bytes of disk for each text, 8 more for each word and 4 for each band. The result does
    not depend on how the texts are batched.

    Args:
        batches: the texts, row by row.
        scratch: holds the arrays.
        threshold: above 0, at most 1.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    r = band_rows(threshold)
    hashes, starts = scratch.array(np.int64), scratch.array(np.int64)
    bits = scratch.array((np.uint64, (_LANES,)))
    bands = [scratch.array(np.uint32) for _ in range(_PERMUTATIONS // r)]
    starts.append(np.zeros(1, dtype=np.int64))
    n_hashes = 0
    for batch in batches:
        sets = [words(text) for text in batch]
        sizes = np.fromiter(map(len, sets), dtype=np.int64, count=len(sets))
        # Python's hash: 64 bits, keyed anew in each process, so that nobody can write words that
        # collide; by chance two words of a pair do once in 10^16 pairs.
        flat = np.fromiter(
            chain.from_iterable(sorted(map(hash, each)) for each in sets),
            dtype=np.int64,
            count=int(sizes.sum()),
        )
        hashes.append(flat)
        starts.append(n_hashes + np.cumsum(sizes))
        bits.append(_bits(flat, sizes))
        for band, column in zip(bands, _band_hashes(sets, r).T, strict=True):
            band.append(column)
        n_hashes += len(flat)
    buckets = []
    bucket_sizes = scratch.array(np.int64)
    for band in bands:
        buckets.append(scratch.array(np.int32))
        _number_buckets(band, starts, buckets[-1], bucket_sizes)
        band.close()
    return WordSets(hashes, starts, bits, buckets, bucket_sizes)


def _band_hashes(sets: Sequence[set[str]], r: int) -> NDArray[np.uint32]:
    """Return (n, bands) hashes of the bands of the signatures; equal bands have equal hashes."""
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_token_sets(
        [list(each) for each in sets], num_perm=_PERMUTATIONS, seed=_SEED
    )
    bands = _PERMUTATIONS // r
    values = (
        np.array(matrix.to_rows(), dtype=np.uint64)
        .reshape(len(sets), _PERMUTATIONS)[:, : bands * r]
        .reshape(-1, bands, r)
    )
    mixed = np.zeros(values.shape[:2], dtype=np.uint64)
    for column in range(r):
        mixed = (mixed ^ values[:, :, column]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _number_buckets(
    band: ScratchArray, starts: ScratchArray, buckets: ScratchArray, bucket_sizes: ScratchArray
) -> None:
    """Append the bucket numbers of a band, from the first free one on, and the buckets' sizes."""
    first = len(bucket_sizes)
    shared = [np.empty(0, dtype=np.uint32)]
    n_ranges = max(len(band) // _SORTED_AT_ONCE, 1)
    edges = np.linspace(0, 1 << 32, n_ranges + 1).astype(np.uint64)
    for low, high in pairwise(edges):
        within = [
            hashes[has_words & (hashes >= low) & (hashes < high)]
            for hashes, has_words in _with_words(band, starts)
        ]
        values, counts = np.unique(np.concatenate([*within, shared[0]]), return_counts=True)
        shared.append(values[counts > 1])
        bucket_sizes.append(counts[counts > 1])
    rising = np.concatenate(shared)
    for hashes, has_words in _with_words(band, starts):
        place = np.searchsorted(rising, hashes)
        if len(rising):
            has_words &= rising[np.minimum(place, len(rising) - 1)] == hashes
        buckets.append(np.where(has_words & (len(rising) > 0), first + place, -1))


def _with_words(
    band: ScratchArray, starts: ScratchArray
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
    """Yield the hashes of a band and which rows have words, in blocks."""
    start = 0
    for hashes in band.blocks():
        rows = np.arange(start, start + len(hashes) + 1, dtype=np.int64)
        yield hashes, np.diff(starts.take(rows)) > 0
        start += len(hashes)


def _bits(hashes: Rows, sizes: Rows) -> NDArray[np.uint64]:
    bits = np.zeros((len(sizes), _LANES), dtype=np.uint64)
    full = np.flatnonzero(sizes)
    if not len(full):
        return bits
    mixed = hashes.astype(np.uint64) * _MIX
    masks = np.uint64(1) << (mixed >> np.uint64(58))
    lanes = (mixed >> np.uint64(40)) % np.uint64(_LANES)
    starts = (np.cumsum(sizes) - sizes)[full]
    for lane in range(_LANES):
        bits[full, lane] = np.bitwise_or.reduceat(
            np.where(lanes == lane, masks, np.uint64(0)), starts
        )
    return bits
