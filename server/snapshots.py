"""The generation in service: leased for each batch, replaced between batches, closed after its last lease."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ImpromptError
from server.metrics import Metrics
from store.generation import open_generation
from store.publish import read_current

if TYPE_CHECKING:
    from core.errors import MemberUnavailable
    from core.protocols import EncoderPair
    from ensemble.vote import Ensemble
    from retriever import Retriever
    from store.generation import Generation

_LOG = logging.getLogger("imprompt.server")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation with what answers from it: the index's encoder, that of the output space, the retriever, the ensemble.

    `ensemble` is the reason instead, where the members cannot vote.
    """

    generation: Generation
    pair: EncoderPair
    output: EncoderPair
    retriever: Retriever
    ensemble: Ensemble | MemberUnavailable


class Snapshots:
    """Holds the snapshot in service.

    Args:
        root: of the index.
        prepare: makes a snapshot of an open generation, models warm.
    """

    def __init__(self, root: Path, prepare: Callable[[Generation], Snapshot], *, metrics: Metrics) -> None:
        self._root = root
        self._prepare = prepare
        self._metrics = metrics
        self._lock = threading.Lock()
        self._current: Snapshot | None = None
        self._leases: dict[int, int] = {}
        self._refused = ""
        self._retired = False

    @property
    def ready(self) -> bool:
        return self._current is not None

    def load(self) -> None:
        """Take the generation in service; the first time, or because there is a new one.

        Raises:
            ImpromptError: it cannot be used; what was in service before stays.
        """
        generation = open_generation(self._root)
        try:
            fresh = self._prepare(generation)
        except BaseException:
            generation.close()
            raise
        with self._lock:
            old, self._current = self._current, fresh
            unused = old if old is not None and not self._leases.get(id(old)) else None
        name = generation.manifest.generation
        self._metrics.serve_generation(name)
        if unused is not None:
            self._let_go(unused)
        if old is not None:
            self._metrics.swaps.inc()
        _LOG.info("generation in service", extra={"event": "generation", "generation": name})

    def look(self) -> None:
        """Take up a new generation where one was published; what cannot be used is reported once and passed over."""
        if self._retired:
            # The files stay mapped until the last reference goes, and what answers from a generation refers to itself.
            self._retired = False
            gc.collect()
        published = ""
        try:
            found = read_current(self._root)
            if found is None or self._current is None or found[0] == self._current.generation.manifest.generation:
                return
            published = found[0]
            if published != self._refused:
                self.load()
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with the new one, the old one goes on
            self._refuse(published, error)

    def _refuse(self, published: str, error: Exception) -> None:
        kind = error.kind if isinstance(error, ImpromptError) else type(error).__name__
        if (published or kind) == self._refused:
            return
        self._refused = published or kind
        self._metrics.swap_failures.inc()
        _LOG.error("new generation not usable", extra={"event": "generation-refused", "generation": published, "kind": kind})

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """The snapshot in service, kept open until the block ends.

        Raises:
            RuntimeError: none has been loaded.
        """
        with self._lock:
            snapshot = self._current
            if snapshot is None:
                raise RuntimeError("no generation has been loaded")
            self._leases[id(snapshot)] = self._leases.get(id(snapshot), 0) + 1
        try:
            yield snapshot
        finally:
            with self._lock:
                self._leases[id(snapshot)] -= 1
                last = not self._leases[id(snapshot)]
                if last:
                    del self._leases[id(snapshot)]
                retired = last and snapshot is not self._current
            if retired:
                self._let_go(snapshot)

    def close(self) -> None:
        """Close the generation in service; nothing may be leased."""
        with self._lock:
            old, self._current = self._current, None
        if old is not None:
            self._let_go(old)

    def _let_go(self, snapshot: Snapshot) -> None:
        snapshot.generation.close()
        self._retired = True
