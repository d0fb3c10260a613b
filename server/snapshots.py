"""The version in service: leased for each batch, replaced between batches, closed after its last lease.

One whose files were written into or cut short is withdrawn before anything that was read from it is
answered, and comes back when every byte of it is as it was published, or when another one was.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.errors import Checksum, ImpromptError
from imprompt.core.settings import IndexPlace
from imprompt.server.prometheus import Metrics
from imprompt.store import layout
from imprompt.store.file_watch import FileWatch
from imprompt.store.integrity import verify
from imprompt.store.open_index import in_service, open_place

if TYPE_CHECKING:
    from imprompt.core.errors import MemberUnavailable
    from imprompt.core.protocols import DualEncoder
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.retriever import Retriever
    from imprompt.store.open_index import OpenIndex

_LOG = logging.getLogger("imprompt.server")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version with what answers from it: the index's encoder, that of the output space, the retriever, the ensemble.

    `ensemble` is the reason instead, where the members cannot vote.
    """

    version: OpenIndex
    pair: DualEncoder
    output: DualEncoder
    retriever: Retriever
    ensemble: Ensemble | MemberUnavailable


class Snapshots:
    """Holds the snapshot in service.

    Args:
        place: of the index.
        prepare: makes a snapshot of an open version, models warm.
        mapped: map the files of the index; see `imprompt.store.index_version.open_version`.
    """

    def __init__(
        self,
        place: IndexPlace,
        prepare: Callable[[OpenIndex], Snapshot],
        *,
        metrics: Metrics,
        mapped: bool = False,
    ) -> None:
        self._place = place
        self._prepare = prepare
        self._metrics = metrics
        self._mapped = mapped
        self._lock = threading.Lock()
        self._current: Snapshot | None = None
        self._leases: dict[int, int] = {}
        self._refused = ""
        self._retired = False
        self._damage: Checksum | None = None
        self._tried: FileWatch | None = None

    @property
    def ready(self) -> bool:
        return self._current is not None

    @property
    def damage(self) -> Checksum | None:
        """Why the version that was in service is not any more;

        None where there is no such reason.
        """
        return self._damage

    def load(self) -> None:
        """Take the version in service; the first time, or because there is a new one.

        Raises:
            ImpromptError: it cannot be used; what was in service before stays.
        """
        version = open_place(self._place, mapped=self._mapped)
        try:
            fresh = self._prepare(version)
        except BaseException:
            version.close()
            raise
        with self._lock:
            old, self._current, self._damage = self._current, fresh, None
            unused = old if old is not None and not self._leases.get(id(old)) else None
        name = version.manifest.version
        self._metrics.serve_version(name)
        self._metrics.ready.set(1)
        if unused is not None:
            self._let_go(unused)
        if old is not None:
            self._metrics.swaps.inc()
        _LOG.info("version in service", extra={"event": "version", "version": name})

    def look(self) -> None:
        """Take up a new version where one was published; what cannot be used is reported once and passed over.

        Withdraw the one in service where its files were changed; take it up again, or the one that
        is published by then, when it is whole.
        """
        if self._retired:
            # The files stay mapped until the last reference goes, and what answers from a
            # version refers to itself.
            self._retired = False
            gc.collect()
        if (current := self._current) is not None:
            try:
                current.version.check_untouched()
            except Checksum as error:
                self._withdraw(current, error)
        published = ""
        try:
            found = in_service(self._place, None if current is None else current.version)
            if found is None:
                return
            if self._damage is not None and isinstance(self._place, Path):
                self._recover(self._place, published := found)
            elif self._current is not None and found != self._current.version.published_as:
                published = found
                if published != self._refused:
                    self.load()
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with the new one, the old one goes on
            self._refuse(published, error)

    def _recover(self, root: Path, published: str) -> None:
        """Take up the published version if every byte of it is right; looked at again only when its files have changed."""
        folder = layout.version_folder(root, published)
        stamps = FileWatch(path for path in sorted(folder.rglob("*")) if path.is_file())
        # What still reads the damaged files has to end first: DuckDB would give us its view of
        # them.
        if self._leases or stamps == self._tried:
            return
        self._tried = stamps
        if problems := verify(root, mapped=False):
            raise Checksum(f"{problems[0]}", path=folder / problems[0].file)
        self.load()

    def _withdraw(self, snapshot: Snapshot, error: Checksum) -> None:
        """Out of service at once; closed when nobody reads it any more."""
        with self._lock:
            if self._current is not snapshot:
                return
            self._current, self._damage, self._tried = None, error, None
            unused = not self._leases.get(id(snapshot))
        self._metrics.ready.set(0)
        self._metrics.withdrawals.inc()
        name = snapshot.version.manifest.version
        _LOG.error(
            "version damaged, out of service", extra={"event": "version-damaged", "version": name}
        )
        if unused:
            self._let_go(snapshot)

    def _refuse(self, published: str, error: Exception) -> None:
        kind = error.kind if isinstance(error, ImpromptError) else type(error).__name__
        if (published or kind) == self._refused:
            return
        self._refused = published or kind
        self._metrics.swap_failures.inc()
        _LOG.error(
            "new version not usable",
            extra={"event": "version-refused", "version": published, "kind": kind},
        )

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """The snapshot in service, kept open until the block ends.

        Raises:
            Checksum: its files are damaged; also at the end of the block, where they were changed
                since they were opened: what was read from them is not to be answered.
            RuntimeError: none has been loaded.
        """
        with self._lock:
            snapshot = self._current
            if snapshot is None:
                raise self._damage or RuntimeError("no version has been loaded")
            self._leases[id(snapshot)] = self._leases.get(id(snapshot), 0) + 1
        try:
            yield snapshot
            snapshot.version.check_untouched()
        except Checksum as error:
            self._withdraw(snapshot, error)
            raise
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
        """Close the version in service; nothing may be leased."""
        with self._lock:
            old, self._current = self._current, None
        if old is not None:
            self._let_go(old)

    def _let_go(self, snapshot: Snapshot) -> None:
        snapshot.version.close()
        self._retired = True
