"""A stand-in for Ray's streams: everything that travels is pickled, and some of it is lost."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

from imprompt.indexer.ray_session import Pool, RayCluster
from imprompt.indexer.ray_stream import LostError

CLUSTER = RayCluster(cleaning=Pool(1, 2, 1), devices=Pool(1, 2, 1))


class Lossy:
    """A stream of the form of `imprompt.indexer.ray_stream.stream`.

    Args:
        lost: places of results that never arrive, by round; -1 breaks the round off there and then.
        tamper: changes what arrives, once for each result.
    """

    def __init__(
        self, *lost: set[int], tamper: Callable[[Any], Any] = lambda result: result
    ) -> None:
        self.lost = list(lost)
        self.tamper = tamper
        self.rounds = 0
        self.worked = 0

    def __call__(
        self, produce: Callable[[], Iterator[Any]], make: Callable[[], Any], *, pool: Pool
    ) -> Iterator[Any]:
        lost = self.lost[self.rounds] if self.rounds < len(self.lost) else set()
        self.rounds += 1
        if -1 in lost:
            raise LostError("the node is gone")
        work = make()
        for place, item in enumerate(produce()):
            result = work(travelled(item))
            self.worked += 1
            if place not in lost:
                yield self.tamper(travelled(result))


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 our own bytes
