"""Work ahead of time: other threads make the next items while the current one is used."""

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
    """Yield the same items in order; another thread makes one item ahead.

    An error that making an item raises is raised in the item's place.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield cast("Item", item)


def side_by_side(
    make: Callable[[Item], Made],
    items: Iterable[Item],
    *,
    threads: int = THREADS,
    most_ahead: int | None = None,
) -> Generator[Made, None, None]:
    """Yield `make` of each item in order, made by several threads.

    Worth it where `make` releases the GIL, as Pillow does while it decodes and resizes. An error of
    `make` is raised in the item's place; later items are then given up.

    Args:
        make: called by several threads.
        items: consumed as results are taken.
        threads: number of threads.
        most_ahead: how many items may be made before their turn; by default as many as threads.
    """
    limit = threads if most_ahead is None else most_ahead
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[Made]] = deque()
        try:
            for item in items:
                coming.append(pool.submit(make, item))
                if len(coming) > limit:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
