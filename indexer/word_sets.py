"""Prompts as sets of words: how similar two of them are, and which are worth comparing.

The similarity of two texts is the Jaccard index of their word sets: words in both, divided by words
in either. MinHash signatures, cut into bands, put similar texts into a common bucket with high
probability (Broder 1997; banding as in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
3.4); texts that share a bucket are compared word by word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.int64]

_PERMUTATIONS = 80
_SEED = 7
_RECALL = 0.99
_LANES = 4
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
    """The word sets of n texts, by row.

    `ids` are the word numbers of all rows, rising within a row; row i has
    `ids[starts[i]:starts[i + 1]]`. `bits` (n, 4) uint64 has one of 256 bits set for each word.
    `buckets` (n, bands) int32: rows with the same number share that band; -1 where a row shares it
    with no other.
    """

    ids: NDArray[np.int32]
    starts: Rows
    bits: NDArray[np.uint64]
    buckets: NDArray[np.int32]
    n_buckets: int

    def sizes(self, rows: Rows) -> Rows:
        """Return how many words each of these rows has."""
        return self.starts[rows + 1] - self.starts[rows]

    def may_reach(self, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
        """Return False for pairs that are certain to be below `threshold`, by sizes and bits."""
        a, b = self.bits[left], self.bits[right]
        size_a, size_b = self.sizes(left), self.sizes(right)
        common_bits = np.bitwise_count(a & b).sum(axis=1, dtype=np.int64)
        # Two words may share a bit, at most as often as the row with fewer such words has them.
        shared = np.minimum(
            size_a - np.bitwise_count(a).sum(axis=1), size_b - np.bitwise_count(b).sum(axis=1)
        ).astype(np.int64)
        common = np.minimum(common_bits + shared, np.minimum(size_a, size_b))
        return np.asarray(common / np.maximum(size_a + size_b - common, 1) >= threshold)

    def jaccard(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """Return the exact Jaccard index of each pair of rows."""
        pair_a, ids_a = self._gather(left)
        pair_b, ids_b = self._gather(right)
        # Pairs rise and words rise within them, so the keys of either side are sorted: each is
        # looked up in the other's.
        keys_a, keys_b = (pair_a << 32) | ids_a, (pair_b << 32) | ids_b
        places = np.searchsorted(keys_b, keys_a)
        places[places == len(keys_b)] = 0
        hit = keys_b[places] == keys_a if len(keys_b) else np.zeros(len(keys_a), dtype=np.bool_)
        common = np.bincount(pair_a[hit], minlength=len(left))
        return np.asarray(common / np.maximum(self.sizes(left) + self.sizes(right) - common, 1))

    def _gather(self, rows: Rows) -> tuple[Rows, Rows]:
        sizes = self.sizes(rows)
        pair = np.repeat(np.arange(len(rows), dtype=np.int64), sizes)
        return pair, self.ids[expanded(self.starts[rows], sizes)].astype(np.int64)


def expanded(starts: Rows, sizes: Rows) -> Rows:
    """Return starts[0], starts[0] + 1, … (sizes[0] of them), then starts[1], and so on."""
    before = np.cumsum(sizes) - sizes
    flat: Rows = np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(starts - before, sizes)
    return flat


def collect_word_sets(batches: Iterable[Sequence[str]], *, threshold: float) -> WordSets:
    """Return the word sets of all texts, with buckets for a Jaccard index of `threshold` or more.

    Takes about 250 bytes for each text and 100 for each different word. The result does not depend
    on how the texts are batched.

    Args:
        batches: the texts, row by row.
        threshold: above 0, at most 1.
    """
    r = band_rows(threshold)
    numbers: dict[str, int] = {}
    ids, sizes = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.int64)]
    bits = [np.empty((0, _LANES), dtype=np.uint64)]
    bands = [np.empty((0, _PERMUTATIONS // r), dtype=np.uint32)]
    for batch in batches:
        sets = [words(text) for text in batch]
        sizes.append(np.fromiter(map(len, sets), dtype=np.int64, count=len(sets)))
        ids.append(
            _sorted_ids(
                (numbers.setdefault(word, len(numbers)) for each in sets for word in each),
                sizes[-1],
            )
        )
        bits.append(_bits(ids[-1], sizes[-1]))
        bands.append(_band_hashes(sets, r))
    all_sizes = np.concatenate(sizes)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(all_sizes)])
    buckets, n_buckets = _buckets(np.concatenate(bands), all_sizes > 0)
    return WordSets(np.concatenate(ids), starts, np.concatenate(bits), buckets, n_buckets)


def _sorted_ids(ids: Iterable[int], sizes: Rows) -> NDArray[np.int32]:
    """Return the word numbers of rows of these sizes, sorted within each row."""
    keys = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes) << 32
    keys |= np.fromiter(ids, dtype=np.int64, count=len(keys))
    keys.sort()
    return (keys & 0xFFFFFFFF).astype(np.int32)


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


def _buckets(
    hashes: NDArray[np.uint32], usable: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], int]:
    """Number the bands that several usable rows share, across all bands; return the count too."""
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
