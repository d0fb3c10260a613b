"""The collection of a version on Milvus, and its indexes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from imprompt.core.errors import StoreError
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.expressions import LOWERED
from imprompt.store.milvus.index_types import METRIC, IndexChoice
from imprompt.store.milvus.schema import MOST_BYTES, NUMBERS, PARAMETER_FIELDS, TEXTS

LONG_S = 24 * 3600.0
"""How long the server may write, build or load a collection."""

_POLL_S = 0.5
_KEY_CHARS = 128
_MOST_PIECES = 4096


def make_collection(
    connection: Connection, collection: str, dims: Mapping[str, int], *, parameters: bool = False
) -> None:
    """Make an empty collection without an index, which is built when all rows are there.

    Args:
        dims: dimension of each vector field.
        parameters: rows have generation parameters.
    """
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(
        auto_id=False, enable_dynamic_field=False, description="imprompt"
    )
    schema.add_field("row_id", DataType.INT64, is_primary=True)
    schema.add_field("prompt_key", DataType.VARCHAR, max_length=_KEY_CHARS)
    for name in (*TEXTS, *LOWERED.values(), *(PARAMETER_FIELDS if parameters else ())):
        schema.add_field(name, DataType.VARCHAR, max_length=MOST_BYTES)
    for name in (*NUMBERS, "n_pieces"):
        schema.add_field(name, DataType.INT64)
    schema.add_field(
        "whole",
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_length=MOST_BYTES,
        max_capacity=_MOST_PIECES,
    )
    for field, dim in dims.items():
        schema.add_field(field, DataType.FLOAT_VECTOR, dim=dim)
    connection.call("create_collection", collection, schema=schema)


def load(connection: Connection, collection: str, *, replicas: int = 1) -> None:
    """Load a collection into the server's memory if needed: Milvus Lite forgets it when it ends."""
    state = connection.call("get_load_state", collection)["state"]
    if getattr(state, "name", str(state)) != "Loaded":
        connection.call("load_collection", collection, timeout_s=LONG_S, replica_number=replicas)


def make_indexes(
    connection: Connection, collection: str, choices: Mapping[str, IndexChoice]
) -> None:
    """Create the missing indexes: of each vector field, and those for looking up prompts.

    Raises:
        StoreError: the server has no such kind of index, or does not take its parameters; its own
            words.
    """
    from pymilvus import MilvusClient

    there = set(connection.call("list_indexes", collection))
    lite = str(connection.call("get_server_version")).startswith("milvus_lite")
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        field: (choice.kind, {"metric_type": METRIC, **choice.params})
        for field, choice in choices.items()
    }
    wanted |= {field: ("INVERTED", {}) for field in ("prompt_key", "group_id")}
    for field, (kind, more) in wanted.items():
        if field in there:
            continue
        index = MilvusClient.prepare_index_params()
        index.add_index(field, index_type=kind, index_name=field, **more)
        # Milvus Lite reads parameters from a key that the client does not set.
        if lite and field in choices:
            index[0].get_index_configs()["params"] = choices[field].params
        connection.call("create_index", collection, index, sync=False)


def wait_for_index(connection: Connection, collection: str, field: str) -> None:
    """Wait until the index of a field is built.

    Raises:
        StoreError: it failed, with the server's reason, or took more than a day.
    """
    until = time.monotonic() + LONG_S
    while time.monotonic() < until:
        found = connection.call("describe_index", collection, field) or {}
        if found.get("state") == "Finished":
            return
        if found.get("state") == "Failed":
            reason = found.get("index_state_fail_reason") or "it gives no reason"
            raise StoreError(f"{connection.place} cannot build the index of {field}: {reason}")
        time.sleep(_POLL_S)
    raise StoreError(
        f"{connection.place} has not built the index of {field} within {LONG_S / 3600:.0f} hours."
    )
