"""Pushing the version in service from a folder to Milvus, where it appears whole or not at all.

Rows go into a new collection, which no query reaches before it is whole, counted, indexed, loaded,
and has answered the check queries. The last step lets the alias name it. A mark says how many rows
were acknowledged, so that the same command resumes there; rows sent after the mark are upserted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from imprompt.core.errors import Checksum, Unreachable
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.settings import MilvusPlace
from imprompt.store.check_queries import N_HITS
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.indexes import WANTED_RECALL
from imprompt.store.manifest import encode_manifest, sha256_bytes
from imprompt.store.milvus.collections import (
    LONG_S,
    load,
    make_collection,
    make_indexes,
    wait_for_index,
)
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.expressions import lowered
from imprompt.store.milvus.index_types import IndexChoice, choose_index
from imprompt.store.milvus.lease import push_lease
from imprompt.store.milvus.meta import Meta
from imprompt.store.milvus.milvus_version import (
    MilvusVersion,
    collection_in_service,
    count_rows,
    damaged,
)
from imprompt.store.milvus.schema import (
    ALIAS,
    META,
    PushedVersion,
    collection_name,
    parameter_fields,
    row_of,
    size_bytes,
    vector_fields,
)

_ROWS_AT_ONCE = 1000
_MARK_EVERY = 10
_MOST_BATCH_BYTES = 16 << 20
_MARK = "sent:"


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How a version lies on the server.

    `index_type` None is FLAT up to 100,000 rows and HNSW above; `index_params` override the type's
    defaults. `replicas` are held in memory. `keep` is how many former versions stay;
    `drop_unfinished` removes leftovers of other versions' pushes.
    """

    index_type: str | None = None
    index_params: Mapping[str, Any] | None = None
    replicas: int = 1
    keep: int = 1
    drop_unfinished: bool = False


@dataclass(frozen=True, slots=True)
class PushReport:
    """The outcome of a push: rows sent by it, collections dropped, and the measured index."""

    version: str
    collection: str
    rows: int
    sent: int
    changed: bool
    kind: str
    effort: float
    recall_at_5: float
    dropped: tuple[str, ...]
    seconds: float


def push(
    root: Path, place: MilvusPlace, *, options: PushOptions, progress: Progress = SILENT
) -> PushReport:
    """Send the version in service in a folder, and put it into service on the server.

    Raises:
        NoIndex, Checksum: the folder holds no index, or a damaged one.
        ConfigError: an option cannot be used.
        FormatVersion: what is on the server was pushed by another version.
        BuildLocked: another push is running there.
        Unreachable: the server does not answer; what it acknowledged is kept.
        StoreError: the server refuses, in its own words.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        source = stack.enter_context(open_version(root))
        choice = choose_index(options.index_type, options.index_params, rows=source.manifest.rows)
        connection = stack.enter_context(Connection(place, create=True))
        meta = Meta(connection, create=True)
        if place.file is None:  # a file is this process's alone
            stack.enter_context(push_lease(meta, where=str(place)))
        sender = _Sender(source, connection, meta, choice, options, progress)
        record, sent = sender.whole()
        changed = sender.put_into_service(record)
        dropped = sender.drop_others()
        return PushReport(
            record.version,
            record.collection,
            source.manifest.rows,
            sent,
            changed,
            record.kind,
            record.effort,
            record.recall_at_5,
            tuple(dropped),
            round(time.monotonic() - began, 3),
        )


class _Sender:
    """One push under way."""

    def __init__(
        self,
        source: IndexVersion,
        connection: Connection,
        meta: Meta,
        choice: IndexChoice,
        options: PushOptions,
        progress: Progress,
    ) -> None:
        self._source = source
        self._manifest = source.manifest
        self._connection = connection
        self._meta = meta
        self._choice = choice
        self._options = options
        self._progress = progress
        self._content = encode_manifest(source.manifest)
        self._sha256 = sha256_bytes(self._content)
        self._collection = collection_name(self._manifest.version, self._sha256, choice)
        self._fields = vector_fields(self._manifest)

    def whole(self) -> tuple[PushedVersion, int]:
        """Make the collection whole, loaded and answering; return (record, rows sent now)."""
        record = self._meta.record(self._collection)
        there = bool(self._connection.call("has_collection", self._collection))
        if record is not None and there:
            self._load()
            self._check(record, all_rows=False)
            return record, 0
        sent = self._send(there)
        self._index()
        self._load()
        n_long = self._counted()
        return self._measured(n_long), sent

    def _send(self, there: bool) -> int:
        """Send the missing rows; return how many they were."""
        dims = {encoder.space: encoder.dim for encoder in self._manifest.encoders}
        if not there:
            self._meta.remove(_MARK + self._collection)
            make_collection(
                self._connection,
                self._collection,
                {field: dims[space] for space, field in self._fields.items()},
                parameters=self._manifest.parameters > 0,
            )
        start = int(self._meta.get(_MARK + self._collection) or 0)
        sent, rows = 0, self._manifest.rows
        with self._progress.start("Sending the rows", rows) as task:
            task.advance(start)
            for number, (first, batch) in enumerate(self._batches(start)):
                # Behind the mark of an earlier call some may be there already; sent over themselves
                # they are there once.
                again = there and first < start + _MARK_EVERY * _ROWS_AT_ONCE
                self._send_rows(batch, again=again)
                sent += len(batch)
                if number % _MARK_EVERY == _MARK_EVERY - 1 or first + len(batch) == rows:
                    self._meta.put(_MARK + self._collection, str(first + len(batch)))
                task.advance(len(batch))
        return sent

    def _batches(self, start: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield (first row id, rows as the server takes them)."""
        vectors = {field: self._source.vectors(space) for space, field in self._fields.items()}
        for first in range(start, self._manifest.rows, _ROWS_AT_ONCE):
            ids = np.arange(first, min(first + _ROWS_AT_ONCE, self._manifest.rows))
            prompts = self._source.prompts.get_many(ids)
            low = lowered([prompt.text for prompt in prompts])
            embedded = lowered([prompt.embedded_text for prompt in prompts])
            blocks = {field: stored.rows(ids) for field, stored in vectors.items()}
            rows = [
                row_of(
                    prompt,
                    text_lower=low[i],
                    embedded_lower=embedded[i],
                    vectors={f: b[i] for f, b in blocks.items()},
                )
                for i, prompt in enumerate(prompts)
            ]
            if self._manifest.parameters:
                parameters = self._source.prompts.parameters(ids)
                rows = [row | parameter_fields(parameters.get(row["row_id"])) for row in rows]
            yield first, rows

    def _send_rows(self, rows: list[dict[str, Any]], *, again: bool) -> None:
        """Send a batch, in halves where it is too large for one message."""
        if size_bytes(rows) > _MOST_BATCH_BYTES and len(rows) > 1:
            for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                self._send_rows(half, again=again)
            return
        # An insert whose answer was lost may have happened: it is sent over itself, which an insert
        # is not.
        try:
            self._connection.call(
                "upsert" if again else "insert", self._collection, rows, retry=again
            )
        except Unreachable:
            if again:
                raise
            self._connection.call("upsert", self._collection, rows)

    def _index(self) -> None:
        """Let the server write what it holds and build the indexes, and wait for them."""
        searched = self._fields[self._source.space]
        with self._progress.start("Building the index on Milvus", None):
            self._connection.call("flush", self._collection, timeout_s=LONG_S)
            make_indexes(
                self._connection,
                self._collection,
                {
                    field: self._choice if field == searched else IndexChoice("FLAT", {})
                    for field in self._fields.values()
                },
            )
            for field in self._fields.values():
                wait_for_index(self._connection, self._collection, field)

    def _load(self) -> None:
        with self._progress.start("Loading it on Milvus", None):
            load(self._connection, self._collection, replicas=self._options.replicas)

    def _counted(self) -> int:
        """Check that all rows are there; return how many have a text longer than a field.

        Raises:
            Checksum: the server lost rows or has some twice; they are dropped, so that the next
                push sends them all.
        """
        rows = count_rows(self._connection, self._collection)
        if rows != self._manifest.rows:
            if collection_in_service(self._connection) != self._collection:
                self._connection.call("drop_collection", self._collection)
            raise Checksum(
                f"{self._connection.place} holds {rows} rows of the {self._manifest.rows} that it "
                "acknowledged.",
                path=Path(self._collection),
                hint="They were dropped there: push again.",
            )
        return count_rows(self._connection, self._collection, where="n_pieces > 0")

    def _measured(self, n_long: int) -> PushedVersion:
        """Return the record with the least effort that finds enough, or nearly the most effort."""
        record = PushedVersion(
            version=self._manifest.version,
            collection=self._collection,
            manifest=self._content.decode(),
            manifest_sha256=self._sha256,
            fields=self._fields,
            kind=self._choice.kind,
            params=self._choice.params,
            effort=1.0,
            recall_at_5=1.0,
            n_long=n_long,
            pushed=_now(),
        )
        with self._progress.start("Searching the check queries", None):
            version = self._check(record, all_rows=not self._choice.has_dial)
            check_queries = self._manifest.check_queries.get(self._source.space, [])
            if not self._choice.has_dial or not check_queries:
                return record
            row_ids = np.array([query.row_id for query in check_queries], dtype=np.int64)
            queries = version.vectors(version.space).rows(row_ids)
            for effort in self._choice.efforts():
                hits = version.index(version.space).search(queries, N_HITS, effort=effort)
                recalls = [
                    np.isin(query.ids, ids).mean()
                    for query, ids in zip(check_queries, hits.ids, strict=True)
                ]
                record = msgspec.structs.replace(
                    record, effort=effort, recall_at_5=float(np.mean(recalls))
                )
                if record.recall_at_5 >= WANTED_RECALL:
                    break
        return record

    def _check(self, record: PushedVersion, *, all_rows: bool) -> MilvusVersion:
        version = MilvusVersion(self._connection, record)
        if (problem := version.problem(all_rows=all_rows)) is not None:
            raise damaged(record, self._connection, problem)
        return version

    def put_into_service(self, record: PushedVersion) -> bool:
        """Let the alias name the collection; False where it did already."""
        current = collection_in_service(self._connection)
        if current == self._collection:
            return False
        self._meta.put_record(msgspec.structs.replace(record, pushed=_now()))
        self._connection.call(
            "create_alias" if current is None else "alter_alias", self._collection, ALIAS
        )
        self._meta.remove(_MARK + self._collection)
        return True

    def drop_others(self) -> list[str]:
        """Drop old versions, and unfinished ones if wanted; return their collections."""
        older = [
            record.collection
            for record in self._meta.records()
            if record.collection != self._collection
        ]
        kept = older[len(older) - self._options.keep :] if self._options.keep else []
        gone = [collection for collection in older if collection not in kept]
        if self._options.drop_unfinished:
            there = self._connection.call("list_collections")
            whole = {META, self._collection, *older}
            gone += sorted(
                name for name in there if name.startswith(f"{ALIAS}_") and name not in whole
            )
        for collection in gone:
            if self._connection.call("has_collection", collection):
                self._connection.call("drop_collection", collection)
            self._meta.remove_record(collection)
            self._meta.remove(_MARK + collection)
        return gone


def _now() -> str:
    return datetime.now(UTC).isoformat()
