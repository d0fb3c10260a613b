"""The engines of `benchmarks/search.py` over the files in one folder: build, open, query.

A peer's process runs in another environment, so only our engine imports imprompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

K = 10
_BLOCK = 65_536
_ROOMY, _TIGHT = 24 << 30, 4 << 30  # memory budgets; the second is the default
_GRAPH_EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_PROBES = (8, 16, 24, 32, 40, 48, 56, 64, 76, 91, 108, 128, 152, 181, 215, 256, 362, 512, 724, 1024)

Ask = Callable[..., Any]
"""(question (1, dim), effort) -> ids of the ten nearest rows.

Those of `search_small.py` take (n, dim) questions, and the number of threads as a third argument.
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open engine: its rising efforts and its description."""

    ask: Ask
    efforts: Sequence[Any]
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine; `files` are its files on disk.

    `predicted_bytes` of (rows, dim), by its format, if nothing was built.
    """

    build: Callable[[Path], None]
    open: Callable[[Path], Opened]
    files: str
    predicted_bytes: Callable[[int, int], int]


def _rows(folder: Path) -> Any:
    return np.load(folder / "rows.npy", mmap_mode="r")


def _build_planned(name: str, budget_bytes: int) -> Callable[[Path], None]:
    """Build the index that imprompt plans for this much memory."""

    def build(folder: Path) -> None:
        import msgspec

        from benchmarks.vectors import vectors_of
        from imprompt.store.index_plan import plan_index
        from imprompt.store.indexes import build_index_file

        vectors = vectors_of(folder.parent, int(folder.name))
        factory = plan_index(rows=len(vectors), dim=vectors.dim, budget_bytes=budget_bytes).factory
        info = build_index_file(folder, f"{name}.faiss", vectors, factory=factory)
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(info))

    return build


def _open_planned(name: str) -> Callable[[Path], Opened]:
    def opened(folder: Path) -> Opened:
        import msgspec

        from benchmarks.vectors import vectors_of
        from imprompt.store.index_plan import read_factory
        from imprompt.store.indexes import open_index
        from imprompt.store.ivf.ivf_index import effort_of
        from imprompt.store.manifest import IndexInfo

        vectors = vectors_of(folder.parent, int(folder.name))
        info = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=IndexInfo)
        index = open_index(folder, info, vectors)
        n_lists = read_factory(info.factory).n_lists

        def ask(question: Any, effort: Any) -> Any:
            return index.search(
                question, K, effort=effort_of(effort, n_lists) if n_lists else None
            ).ids[0]

        efforts = [n for n in (_PROBES if name == "ours" else _PROBES[1::4]) if n < n_lists] or [1]
        return Opened(ask, efforts, {"index": info.factory, "parts": max(len(info.parts), 1)})

    return opened


def _planned_bytes(budget_bytes: int) -> Callable[[int, int], int]:
    def predicted(rows: int, dim: int) -> int:
        from imprompt.store.index_plan import plan_index

        return plan_index(rows=rows, dim=dim, budget_bytes=budget_bytes).index_bytes

    return predicted


def _build_faiss(factory: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        import faiss

        rows = _rows(folder)
        index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(rows), _BLOCK):
            index.add(np.ascontiguousarray(rows[start : start + _BLOCK]))
        faiss.write_index(index, str(folder / f"{factory.replace(',', '_')}.faiss"))

    return build


def _open_faiss(factory: str, efforts: Sequence[Any]) -> Callable[[Path], Opened]:
    def opened(folder: Path) -> Opened:
        import faiss

        index = faiss.read_index(str(folder / f"{factory.replace(',', '_')}.faiss"))

        def ask(question: Any, effort: Any) -> Any:
            params = (
                faiss.SearchParametersHNSW(efSearch=effort) if factory.startswith("HNSW") else None
            )
            return index.search(question, K, params=params)[1][0]

        return Opened(ask, efforts, {"index": factory})

    return opened


def _build_hnswlib(folder: Path) -> None:
    """Build with the parameters of its README: M 16, ef_construction 200."""
    import hnswlib

    rows = _rows(folder)
    index = hnswlib.Index("ip", rows.shape[1])
    index.init_index(len(rows), ef_construction=200, M=16)
    for start in range(0, len(rows), _BLOCK):
        index.add_items(
            rows[start : start + _BLOCK], np.arange(start, min(start + _BLOCK, len(rows)))
        )
    index.save_index(str(folder / "hnswlib.bin"))


def _open_hnswlib(folder: Path) -> Opened:
    import hnswlib

    index = hnswlib.Index("ip", _rows(folder).shape[1])
    index.load_index(str(folder / "hnswlib.bin"))

    def ask(question: Any, effort: Any) -> Any:
        index.set_ef(effort)
        return index.knn_query(question, K, num_threads=1)[0][0]

    return Opened(ask, _GRAPH_EFFORTS, {"index": "M 16, ef_construction 200"})


def _build_usearch(folder: Path) -> None:
    """Build with its defaults, and float16."""
    from usearch.index import Index

    rows = _rows(folder)
    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16")
    for start in range(0, len(rows), _BLOCK):
        index.add(
            np.arange(start, min(start + _BLOCK, len(rows))),
            np.ascontiguousarray(rows[start : start + _BLOCK]),
        )
    index.save(str(folder / "usearch.bin"))


def _open_usearch(folder: Path) -> Opened:
    from usearch.index import Index

    index = Index.restore(str(folder / "usearch.bin"), view=True)

    def ask(question: Any, effort: Any) -> Any:
        index.expansion_search = effort
        return index.search(question[0], K, threads=1).keys

    return Opened(ask, _GRAPH_EFFORTS, {"index": "defaults, f16, mapped"})


def _build_autofaiss(folder: Path) -> None:
    """Build its choice: an index of at most 16 GB, tuned to 10 ms a query."""
    from autofaiss import build_index

    build_index(
        _rows(folder),
        index_path=str(folder / "autofaiss.faiss"),
        index_infos_path=str(folder / "autofaiss.json"),
        metric_type="ip",
        nb_cores=2,
        verbose=30,
    )


def _open_autofaiss(folder: Path) -> Opened:
    import faiss

    index, space = faiss.read_index(str(folder / "autofaiss.faiss")), faiss.ParameterSpace()
    about = json.loads((folder / "autofaiss.json").read_text("utf-8"))

    def ask(question: Any, effort: Any) -> Any:
        space.set_index_parameters(index, effort)
        return index.search(question, K)[1][0]

    return Opened(ask, [about["index_param"]], {"index": about["index_key"]})


ENGINES: dict[str, Engine] = {
    "ours": Engine(
        _build_planned("ours", _ROOMY), _open_planned("ours"), "ours*.faiss", _planned_bytes(_ROOMY)
    ),
    "tight": Engine(
        _build_planned("tight", _TIGHT),
        _open_planned("tight"),
        "tight*.faiss",
        _planned_bytes(_TIGHT),
    ),
    "flat": Engine(
        _build_faiss("Flat"),
        _open_faiss("Flat", [0]),
        "Flat.faiss",
        lambda rows, dim: 4 * rows * dim,
    ),
    # A row, 64 links of 4 bytes at the lowest level, one more in 32 above, and its level and
    # offset.
    "faiss-hnsw": Engine(
        _build_faiss("HNSW32"),
        _open_faiss("HNSW32", _GRAPH_EFFORTS),
        "HNSW32.faiss",
        lambda rows, dim: rows * (4 * dim + 64 * 4 + 4 + 12),
    ),
    # A row, 32 links and their number, a label.
    "hnswlib": Engine(
        _build_hnswlib,
        _open_hnswlib,
        "hnswlib.bin",
        lambda rows, dim: rows * (4 * dim + 33 * 4 + 8),
    ),
    # A float16 row, 32 links of 5 bytes and their number, a key and the level.
    "usearch": Engine(
        _build_usearch,
        _open_usearch,
        "usearch.bin",
        lambda rows, dim: rows * (2 * dim + 32 * 5 + 4 + 10),
    ),
}
ENGINES["autofaiss"] = Engine(
    _build_autofaiss, _open_autofaiss, "autofaiss.faiss", ENGINES["faiss-hnsw"].predicted_bytes
)
