"""The index version in service: leased to each batch, replaced between batches, closed when unused.

A version whose files were overwritten or truncated is withdrawn before anything read from them is
answered. It returns when all of its bytes are as published, or when another version is published.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
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
    """One open index version with the models that answer from it.

    `encoder` is that of the index, `output` that of MiniLM's space. `ensemble` is an error if a
    member is unavailable. `sources` counts the prompts of each corpus.
    """

    version: OpenIndex
    encoder: DualEncoder
    output: DualEncoder
    retriever: Retriever
    ensemble: Ensemble | MemberUnavailable
    sources: Mapping[str, int]


@dataclass(slots=True)
class _LeasedSnapshot:
    """A snapshot and the number of its current leases."""

    snapshot: Snapshot
    leases: int = 0


class CurrentSnapshot:
    """Holds the snapshot in service and replaces it when a new version is published.

    Args:
        place: where the index is.
        prepare: makes a snapshot of an open version, with its models loaded.
        mapped: memory-map the index files; see `imprompt.store.index_version.open_version`.
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
        self._current: _LeasedSnapshot | None = None
        self._n_leases = 0  # of the current snapshot and of its predecessors
        self._last_failure = ""
        self._must_collect = False
        self._damage: Checksum | None = None
        self._verified_files: FileWatch | None = None

    @property
    def ready(self) -> bool:
        """Whether a snapshot is in service."""
        return self._current is not None

    @property
    def damage(self) -> Checksum | None:
        """Why the last version was withdrawn; None if it was not."""
        return self._damage

    def load(self) -> None:
        """Open the published version and put it in service.

        Raises:
            ImpromptError: it cannot be used; the previous version stays in service.
        """
        version = open_place(self._place, mapped=self._mapped)
        try:
            snapshot = self._prepare(version)
        except BaseException:
            version.close()
            raise
        with self._lock:
            old, self._current, self._damage = self._current, _LeasedSnapshot(snapshot), None
            unused = old if old is not None and not old.leases else None
        name = version.manifest.version
        self._metrics.serve_version(name)
        self._metrics.ready.set(1)
        if unused is not None:
            self._close(unused)
        if old is not None:
            self._metrics.swaps.inc()
        _LOG.info("version in service", extra={"event": "version", "version": name})

    def poll(self) -> None:
        """Withdraw the version in service if its files changed, and load a newly published one.

        A version that cannot be used is logged once and skipped. A withdrawn one is loaded again
        when it is intact.
        """
        if self._must_collect:
            # Mapped files stay open until the last reference is gone, and a closed snapshot is
            # part of reference cycles.
            self._must_collect = False
            gc.collect()
        if (current := self._current) is not None:
            try:
                current.snapshot.version.check_untouched()
            except Checksum as error:
                self._withdraw(current, error)
        tried = ""
        try:
            open_version = None if current is None else current.snapshot.version
            published = in_service(self._place, open_version)
            if published is None:
                return
            if self._damage is not None and isinstance(self._place, Path):
                tried = published
                self._recover(self._place, published)
            elif self.ready and open_version is not None and published != open_version.published_as:
                tried = published
                if published != self._last_failure:
                    self.load()
        except Exception as error:  # noqa: BLE001 -- the old version keeps serving
            self._record_failure(tried, error)

    def _recover(self, root: Path, published: str) -> None:
        """Load the published version if it is intact; its files are read again only on a change."""
        folder = layout.version_folder(root, published)
        files = FileWatch(path for path in sorted(folder.rglob("*")) if path.is_file())
        # Readers of the damaged files have to finish first, or DuckDB would return its cached view.
        if self._n_leases or files == self._verified_files:
            return
        self._verified_files = files
        if problems := verify(root, mapped=False):
            raise Checksum(f"{problems[0]}", path=folder / problems[0].file)
        self.load()

    def _withdraw(self, leased: _LeasedSnapshot, error: Checksum) -> None:
        """Take a damaged snapshot out of service; it is closed when its last lease ends."""
        with self._lock:
            if self._current is not leased:
                return
            self._current, self._damage, self._verified_files = None, error, None
            unused = not leased.leases
        self._metrics.ready.set(0)
        self._metrics.withdrawals.inc()
        name = leased.snapshot.version.manifest.version
        extra = {"event": "version-damaged", "version": name}
        _LOG.error("version damaged, out of service", extra=extra)
        if unused:
            self._close(leased)

    def _record_failure(self, published: str, error: Exception) -> None:
        """Count and log an unusable version, or a failed poll, once."""
        kind = error.kind if isinstance(error, ImpromptError) else type(error).__name__
        if (published or kind) == self._last_failure:
            return
        self._last_failure = published or kind
        self._metrics.swap_failures.inc()
        extra = {"event": "version-refused", "version": published, "kind": kind}
        _LOG.error("new version not usable", extra=extra)

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """Yield the snapshot in service and keep it open until the block ends.

        Raises:
            Checksum: its files are damaged. This is checked at the end of the block too, so that
                nothing read from damaged files is answered.
            RuntimeError: no version has been loaded.
        """
        with self._lock:
            leased = self._current
            if leased is None:
                raise self._damage or RuntimeError("no version has been loaded")
            leased.leases += 1
            self._n_leases += 1
        try:
            yield leased.snapshot
            leased.snapshot.version.check_untouched()
        except Checksum as error:
            self._withdraw(leased, error)
            raise
        finally:
            with self._lock:
                leased.leases -= 1
                self._n_leases -= 1
                retired = not leased.leases and leased is not self._current
            if retired:
                self._close(leased)

    def close(self) -> None:
        """Close the version in service; nothing may be leased."""
        with self._lock:
            old, self._current = self._current, None
        if old is not None:
            self._close(old)

    def _close(self, leased: _LeasedSnapshot) -> None:
        leased.snapshot.version.close()
        self._must_collect = True
