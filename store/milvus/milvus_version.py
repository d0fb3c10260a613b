"""One version on Milvus, checked before it answers."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from imprompt.core.errors import Checksum, SpaceMismatch
from imprompt.core.protocols import VectorIndex
from imprompt.core.settings import MilvusPlace
from imprompt.core.values import prompt_key
from imprompt.store.check_queries import check_query_problem
from imprompt.store.exact_index import ExactIndex
from imprompt.store.gpu import Gpu
from imprompt.store.manifest import Manifest, space_mismatch
from imprompt.store.milvus.collections import load
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.index import MilvusIndex
from imprompt.store.milvus.meta import Meta, nothing_pushed
from imprompt.store.milvus.milvus_prompts import MilvusPrompts
from imprompt.store.milvus.schema import ALIAS, PushedVersion
from imprompt.store.milvus.vectors import MilvusVectors


class MilvusVersion:
    """An `imprompt.store.open_index.OpenIndex` over one collection, which stays the same.

    Args:
        connection: is closed with it.
        record: what was recorded when it was pushed.
    """

    def __init__(self, connection: Connection, record: PushedVersion) -> None:
        self._connection = connection
        self._record = record
        self.manifest: Manifest = record.read_manifest()
        rows, collection = self.manifest.rows, record.collection
        self.prompts = MilvusPrompts(
            connection,
            collection,
            rows=rows,
            n_long=record.n_long,
            has_parameters=self.manifest.parameters > 0,
        )
        dims = {encoder.space: encoder.dim for encoder in self.manifest.encoders}
        self._vectors = {
            space: MilvusVectors(connection, collection, field, rows=rows, dim=dims[space])
            for space, field in record.fields.items()
        }
        self._index = MilvusIndex(
            connection,
            collection,
            record.fields[self.space],
            self._vectors[self.space],
            choice=record.choice,
            effort=record.effort,
            n_long=record.n_long,
        )

    @property
    def published_as(self) -> str:
        """The name of the collection."""
        return self._record.collection

    @property
    def space(self) -> str:
        """The space that is searched: that of the first encoder."""
        return self.manifest.encoders[0].space

    def index(self, space: str) -> VectorIndex:
        """Return the index of the searched space.

        Raises:
            SpaceMismatch: another space.
        """
        if space != self.space:
            raise self._mismatch(space)
        return self._index

    def vectors(self, space: str) -> MilvusVectors:
        """Return the vectors of a space.

        Raises:
            SpaceMismatch: the version has no vectors of that space.
        """
        if space not in self._vectors:
            raise self._mismatch(space)
        return self._vectors[space]

    @cached_property
    def index_lines(self) -> dict[str, str]:
        """The index of the searched space and its measured recall, in words."""
        record = self._record
        params = ", ".join(f"{name} {value}" for name, value in record.params.items())
        kind = f"{record.kind} ({params})" if params else record.kind
        recall = f"recall@5 {record.recall_at_5:.3f} with effort {record.effort:.2f}"
        return {self.space: f"{kind} on Milvus, {recall}"}

    def in_service(self) -> str | None:
        """`published_as` of what is in service by now; None where nothing is.

        Raises:
            Unreachable: the server does not answer.
        """
        return collection_in_service(self._connection)

    def check_untouched(self) -> None:
        """Nothing to check: the server answers whole rows of one collection, or none."""

    def search_on(self, gpu: Gpu) -> None:
        """Changes nothing: the server searches."""

    def close(self) -> None:
        """Let go of the server; calling it again does nothing."""
        self._connection.close()

    def __enter__(self) -> MilvusVersion:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def problem(self, *, all_rows: bool) -> str | None:
        """Return how the rows differ from those pushed, in one phrase; None if they do not.

        Compared are their number, keys, and the answers to the check queries.

        Args:
            all_rows: search all rows for the answers, not only those that the check queries name.
        """
        rows = count_rows(self._connection, self._record.collection)
        if rows != self.manifest.rows:
            return f"{rows} rows are there, not {self.manifest.rows}"
        row_ids = []
        for space, check_queries in self.manifest.check_queries.items():
            vectors = self.vectors(space)
            searched = all_rows and space == self.space
            index = self._index if searched else ExactIndex(vectors)
            problem = check_query_problem(check_queries, vectors, index, all_rows=searched)
            if problem is not None:
                return f"in {space}, {problem}"
            row_ids += [query.row_id for query in check_queries]
        for prompt in self.prompts.get_many(row_ids):
            if prompt.prompt_key != prompt_key(prompt.embedded_text):
                return f"row {prompt.row_id} is not the prompt that its key says"
        return None

    def _mismatch(self, space: str) -> SpaceMismatch:
        return space_mismatch(self.manifest, space, instead="another index")


def open_milvus(place: MilvusPlace) -> MilvusVersion:
    """Open the version in service on a server, its rows counted, its check queries answered.

    Raises:
        NoIndex: nothing whole was pushed there.
        FormatVersion: it was pushed by another version.
        Unreachable: the server does not answer.
        Checksum: what is there is not what was pushed.
    """
    connection = Connection(place)
    try:
        collection = collection_in_service(connection)
        record = None if collection is None else Meta(connection).record(collection)
        if record is None:
            raise nothing_pushed(connection)
        load(connection, record.collection)
        version = MilvusVersion(connection, record)
        if (problem := version.problem(all_rows=False)) is not None:
            raise damaged(record, connection, problem)
    except BaseException:
        connection.close()
        raise
    return version


def damaged(record: PushedVersion, connection: Connection, problem: str) -> Checksum:
    """Return the error for a version that does not answer as it did when it was pushed."""
    message = f"{record.collection} on {connection.place} is not what was pushed: {problem}."
    return Checksum(message, path=Path(record.collection), hint="Push the index again.")


def collection_in_service(connection: Connection) -> str | None:
    """Return the collection that the alias names; None if nothing is in service."""
    if not connection.call("has_collection", ALIAS):
        return None
    return str(connection.call("describe_alias", ALIAS)["collection_name"])


def count_rows(connection: Connection, collection: str, *, where: str = "") -> int:
    """Return how many rows of a collection, all acknowledged ones included, pass an expression."""
    answer = connection.call(
        "query", collection, filter=where, output_fields=["count(*)"], consistency_level="Strong"
    )
    return int(answer[0]["count(*)"])
