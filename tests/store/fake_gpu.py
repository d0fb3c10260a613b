"""A GPU of FAISS without a GPU.

Indexes on the processor with the manners, and the bad manners, of those on one.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Ids, Vectors
from imprompt.store.gpu import GPU_POOL


class FakeGpu:
    """A maker of clone functions; `connect` stands in for that of `imprompt.store.gpu`.

    Its indexes keep float16, may be used by the thread that connected alone and by one call at a
    time, refuse to find more rows than FAISS does on a GPU, and do not hold more than `room_rows`
    rows together.

    Args:
        room_rows: of its memory.
        refused_clones: the numbers, from 0, of the calls of the clone function that find its memory
            full.
    """

    def __init__(
        self, *, room_rows: int = 1 << 30, refused_clones: frozenset[int] = frozenset()
    ) -> None:
        self.room_rows = room_rows
        self.searches = 0
        self.clones = 0
        self._refused = refused_clones
        self._owner = 0
        self._lock = threading.Lock()
        self._alive: weakref.WeakSet[Float16Index] = weakref.WeakSet()

    @property
    def rows(self) -> int:
        """How many it holds now."""
        return sum(index.ntotal for index in self._alive)

    def connect(self) -> FakeGpu:
        self._owner = threading.get_ident()
        return self

    def __call__(self, index: Any, *, float16: bool) -> Any:
        self.touch()
        self.clones += 1
        if self.clones - 1 in self._refused:
            raise RuntimeError(
                "Error in allocMemory:\nFailed to cudaMalloc 1536 bytes (error 2 out of memory)"
            )
        if not float16:
            return faiss.clone_index(index)  # C++ clusters with it, so it has to be one of FAISS's
        made = Float16Index(self, index)
        self._alive.add(made)
        return made

    def touch(self) -> None:
        """Fail for another thread: that is a bug, which a GPU would answer with wrong rows."""
        assert threading.get_ident() == self._owner, (
            "the GPU was touched by a thread that is not its owner"
        )

    def search(self, index: Any, queries: Vectors, k: int) -> tuple[NDArray[np.float32], Ids]:
        self.touch()
        assert self._lock.acquire(blocking=False), "two searches at once"
        try:
            if k > GPU_POOL:
                raise RuntimeError(
                    f"GPU index only supports min/max-K selection up to {GPU_POOL} (requested {k})"
                )
            self.searches += 1
            return index.search(queries, k)  # type: ignore[no-any-return]
        finally:
            self._lock.release()


class Float16Index:
    """A flat index that rounds rows and questions to float16, as FAISS does on a GPU."""

    def __init__(self, gpu: FakeGpu, empty: Any) -> None:
        self._gpu = gpu
        self._index = faiss.clone_index(empty)
        self.ntotal = 0

    def add(self, rows: Vectors) -> None:
        self._gpu.touch()
        if self._gpu.rows + len(rows) > self._gpu.room_rows:
            raise RuntimeError(
                "Error in allocMemory:\nFailed to cudaMalloc 1536 bytes (error 2 out of memory)"
            )
        self._index.add(rows.astype(np.float16).astype(np.float32))
        self.ntotal = self._index.ntotal

    def search(self, queries: Vectors, k: int) -> tuple[NDArray[np.float32], Ids]:
        return self._gpu.search(self._index, queries.astype(np.float16).astype(np.float32), k)
