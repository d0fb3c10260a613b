"""The first rows of a source, or a seeded sample of them, as sources of their own."""

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
    """The first `limit` rows, rejected ones among them."""

    def rows(start: int) -> Iterator[Row]:
        return itertools.islice(source.open_rows(start), max(limit - start, 0))

    return replace(
        source,
        open_rows=rows,
        digest=lambda: _derived(source, f"first {limit}"),
        count=lambda: min(source.count(), limit),
    )


def sampled_rows(source: StreamedSource, size: int, *, seed: int) -> StreamedSource:
    """`size` rows drawn without replacement by `seed`, in the source's order; all of them where there are fewer."""

    def rows(start: int) -> Iterator[Row]:
        wanted = draw_rows(source.count(), size, seed=seed)[start:]
        if len(wanted):
            opened = source.open_rows(int(wanted[0]))
            for gap in np.diff(wanted, prepend=wanted[0] - 1).tolist():
                yield from itertools.islice(opened, gap - 1, gap)

    return replace(
        source,
        open_rows=rows,
        digest=lambda: _derived(source, f"sample {size} seed {seed}"),
        count=lambda: min(source.count(), size),
    )


def draw_rows(total: int, size: int, *, seed: int) -> Ids:
    """(min(size, total),) row numbers below `total`, rising, each set of that size equally likely.

    Every row gets a random 64-bit key, the smallest keys win. The keys are the raw output of PCG64,
    which numpy promises not to change, unlike the methods of its Generator. Memory is a function of
    `size`, not of `total`.
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


def _derived(source: StreamedSource, how: str) -> str:
    return hashlib.sha256(f"{how}\n{source.fingerprint()}".encode()).hexdigest()
