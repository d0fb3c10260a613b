"""Milvus Lite for the contracts: one file a session, a collection for each index or store."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np

from imprompt.core.protocols import PromptStore, VectorIndex
from imprompt.core.settings import MilvusPlace
from imprompt.core.values import Parameters, Prompt
from imprompt.store.milvus.collections import make_collection, make_indexes
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.expressions import lowered
from imprompt.store.milvus.index import MilvusIndex
from imprompt.store.milvus.index_types import IndexChoice, choose_index
from imprompt.store.milvus.milvus_prompts import MilvusPrompts
from imprompt.store.milvus.schema import parameter_fields, row_of
from imprompt.store.milvus.vectors import MilvusVectors
from imprompt.store.shards import ShardedVectors

FIELD = "vector_0"
_NAMES = (f"contract_{number}" for number in itertools.count())
_open: list[tuple[Connection, str]] = []


@contextmanager
def lite_file() -> Iterator[Connection]:
    """The connection that all tests of the session share; made when first asked for."""
    if not _open:
        folder = tempfile.mkdtemp(prefix="imprompt-milvus-")
        _open.append(
            (Connection(MilvusPlace(str(Path(folder) / "contracts.db")), create=True), folder)
        )
    yield _open[0][0]


def close_lite_file() -> None:
    """Stop what `lite_file` started, if it did."""
    while _open:
        connection, folder = _open.pop()
        connection.close()
        shutil.rmtree(folder)


def _collection(
    prompts: Sequence[Prompt],
    rows: np.ndarray,
    choice: IndexChoice,
    *,
    parameters: Mapping[int, Parameters] = MappingProxyType({}),
) -> tuple[Connection, str]:
    with lite_file() as connection:
        name = next(_NAMES)
        make_collection(connection, name, {FIELD: rows.shape[1]}, parameters=bool(parameters))
        low, embedded = (
            lowered([p.text for p in prompts]),
            lowered([p.embedded_text for p in prompts]),
        )
        for start in range(0, len(prompts), 500):
            batch = [
                row_of(
                    prompts[i],
                    text_lower=low[i],
                    embedded_lower=embedded[i],
                    vectors={FIELD: rows[i]},
                )
                | (parameter_fields(parameters.get(i)) if parameters else {})
                for i in range(start, min(start + 500, len(prompts)))
            ]
            connection.call("insert", name, batch)
        connection.call("flush", name)
        make_indexes(connection, name, {FIELD: choice})
        connection.call("load_collection", name)
        return connection, name


def milvus_index(vectors: ShardedVectors, kind: str, *, effort: float) -> VectorIndex:
    """The rows of shards under an index of Milvus Lite."""
    choice = choose_index(
        kind, {"nlist": 16} if kind.startswith("IVF") else None, rows=len(vectors)
    )
    prompts = [Prompt(i, f"{i:064x}", "", "", "", "", 1, i) for i in range(len(vectors))]
    connection, name = _collection(prompts, vectors.rows(np.arange(len(vectors))), choice)
    stored = MilvusVectors(connection, name, FIELD, rows=len(vectors), dim=vectors.dim)
    return MilvusIndex(connection, name, FIELD, stored, choice=choice, effort=effort)


def milvus_prompts(
    prompts: Sequence[Prompt], parameters: Mapping[int, Parameters] = MappingProxyType({})
) -> PromptStore:
    """Prompts in a collection of Milvus Lite, and the generation parameters of some."""
    connection, name = _collection(
        prompts,
        np.eye(1, 4, dtype=np.float32).repeat(len(prompts), axis=0),
        IndexChoice("FLAT", {}),
        parameters=parameters,
    )
    n_long = sum(max(len(p.text), len(p.embedded_text)) > 60_000 for p in prompts)
    return MilvusPrompts(
        connection, name, rows=len(prompts), n_long=n_long, has_parameters=bool(parameters)
    )
