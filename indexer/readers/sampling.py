"""Sources of the first rows of another source, or of a seeded sample of it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from imprompt.core.values import Ids
from imprompt.indexer.readers.rows import Row, StreamedSource

_DRAWN_ROWS = 1 << 20


def first_rows(source: StreamedSource, limit: int) -> StreamedSource:
    """Return a source of the first `limit` rows, including rejected ones."""

    def rows(start: int) -> Iterator[Row]:
        return itertools.islice(source.open_rows(start), max(limit - start, 0))

    return replace(
        source,
        open_rows=rows,
        digest=lambda: _derived(source, f"first {limit}"),
        count=lambda: min(source.count(), limit),
    )


def sampled_rows(source: StreamedSource, size: int, *, seed: int) -> StreamedSource:
    """Return a source of `size` rows drawn without replacement (or all), in the source's order."""

    def rows(start: int) -> Iterator[Row]:
        drawn = draw_rows(source.count(), size, seed=seed)[start:]
        if len(drawn):
            rest = source.open_rows(int(drawn[0]))
            for gap in np.diff(drawn, prepend=drawn[0] - 1).tolist():
                yield from itertools.islice(rest, gap - 1, gap)

    return replace(
        source,
        open_rows=rows,
        digest=lambda: _derived(source, f"sample {size} seed {seed}"),
        count=lambda: min(source.count(), size),
    )


def draw_rows(total: int, size: int, *, seed: int) -> Ids:
    """Return (min(size, total),) rising row numbers below `total`, each set equally likely.

    Every row gets a random 64-bit key, and the smallest keys win. The keys are the raw output of
    PCG64, which numpy promises not to change, unlike the methods of its Generator. Memory depends
    on `size`, not on `total`.
    """
    bits = np.random.PCG64(seed)
    keys = np.empty(0, dtype=np.uint64)
    rows = np.empty(0, dtype=np.int64)
    for begin in range(0, total, _DRAWN_ROWS):
        end = min(begin + _DRAWN_ROWS, total)
        keys = np.concatenate([keys, np.atleast_1d(bits.random_raw(end - begin))])
        rows = np.concatenate([rows, np.arange(begin, end, dtype=np.int64)])
        if len(keys) > size:
            best = np.argpartition(keys, size - 1)[:size]
            keys, rows = keys[best], rows[best]
    return np.sort(rows)


def _derived(source: StreamedSource, selection: str) -> str:
    return hashlib.sha256(f"{selection}\n{source.fingerprint()}".encode()).hexdigest()
