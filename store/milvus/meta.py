"""Texts by key on a server, such as the records of versions, in one small collection."""

from __future__ import annotations

import threading

import msgspec

from imprompt.core.errors import FormatVersion, NoIndex, StoreError
from imprompt.store.milvus.collections import load
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.schema import (
    META,
    MOST_BYTES,
    SCHEMA,
    SCHEMA_KEY,
    PushedVersion,
    check_schema,
    pieces,
)

_MOST_PIECES = 4096
_KEY_CHARS = 512
_RECORD = "record:"


class Meta:
    """Texts by key on a server.

    Args:
        connection: stays open as long as this is used.
        create: make the collection where there is none.

    Raises:
        NoIndex: nothing was ever pushed there.
        FormatVersion: what was pushed there is of another schema.
    """

    def __init__(self, connection: Connection, *, create: bool = False) -> None:
        self._connection = connection
        # A mark and a heartbeat may be written at once, which Milvus Lite does not take.
        self._lock = threading.Lock()
        if not connection.call("has_collection", META):
            if not create:
                raise nothing_pushed(connection)
            try:
                self._create()
            except StoreError:
                if not connection.call("has_collection", META):  # else another push was quicker
                    raise
        load(connection, META)
        found = self.get(SCHEMA_KEY)
        if found is None and create:
            self.put(SCHEMA_KEY, found := str(SCHEMA))
        if found is None:
            raise nothing_pushed(connection)
        check_schema(found, where=str(connection.place))

    def get(self, key: str) -> str | None:
        """Return the text of a key; None if there is none."""
        rows = self._connection.call(
            "query",
            META,
            filter=f'key == "{key}"',
            output_fields=["pieces"],
            consistency_level="Strong",
        )
        return "".join(rows[0]["pieces"]) if rows else None

    def put(self, key: str, text: str) -> None:
        """Set the text of a key."""
        with self._lock:
            self._connection.call(
                "upsert", META, [{"key": key, "pieces": [*pieces(text)], "vector": [1.0, 0.0]}]
            )

    def remove(self, key: str) -> None:
        """Forget a key, if it is there."""
        with self._lock:
            self._connection.call("delete", META, filter=f'key == "{key}"')

    def record(self, collection: str) -> PushedVersion | None:
        """Return the record of a collection's version; None while it is not whole.

        Raises:
            FormatVersion: it was written by another version.
        """
        text = self.get(_RECORD + collection)
        if text is None:
            return None
        try:
            return msgspec.json.decode(text, type=PushedVersion)
        except msgspec.MsgspecError as error:
            raise FormatVersion(
                f"{self._connection.place} describes {collection} in a way that this version does "
                "not read.",
                hint="Push it again.",
            ) from error

    def put_record(self, record: PushedVersion) -> None:
        self.put(_RECORD + record.collection, msgspec.json.encode(record).decode())

    def remove_record(self, collection: str) -> None:
        self.remove(_RECORD + collection)

    def records(self) -> list[PushedVersion]:
        """Return the records of all whole versions, the last pushed at the end."""
        rows = self._connection.call(
            "query",
            META,
            filter=f'key like "{_RECORD}%"',
            output_fields=["key"],
            limit=1000,
            consistency_level="Strong",
        )
        found = [self.record(str(row["key"]).removeprefix(_RECORD)) for row in rows]
        return sorted(
            (record for record in found if record is not None),
            key=lambda record: (record.pushed, record.collection),
        )

    def _create(self) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description="imprompt"
        )
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=_KEY_CHARS)
        schema.add_field(
            "pieces",
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_length=MOST_BYTES,
            max_capacity=_MOST_PIECES,
        )
        # Milvus makes no collection without a vector.
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index("vector", index_type="FLAT", metric_type="IP")
        self._connection.call("create_collection", META, schema=schema, index_params=indexes)


def nothing_pushed(connection: Connection) -> NoIndex:
    place = connection.place
    return NoIndex(
        f"There is no index on {place}.",
        hint=f"Send one there: imprompt push --index FOLDER {place}",
    )
