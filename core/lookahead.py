"""Work that is done while somebody else works: the next thing is made by another thread while the one before is used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")
Made = TypeVar("Made")

THREADS = min(os.cpu_count() or 1, 8)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items in the same order, each made by another thread while the one before is used; never more than one waits.

    What making an item raises comes in its place.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield cast("Item", item)


def side_by_side(
    make: Callable[[Item], Made], items: Iterable[Item], *, threads: int = THREADS
) -> Generator[Made, None, None]:
    """`make` of each item, in order, by several threads, which are never more than `threads` items ahead.

    Worth it where `make` lets other threads run, as Pillow does while it decodes and resizes. What
    it raises comes in the item's place, and later items are given up.
    """
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[Made]] = deque()
        try:
            for item in items:
                coming.append(pool.submit(make, item))
                if len(coming) > threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
