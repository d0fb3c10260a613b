"""Search in a million prompts' vectors: ours beside FAISS's flat and HNSW indexes, hnswlib, usearch, and what autofaiss chooses.

    python benchmarks/search.py --vectors INDEX_FOLDER --work FOLDER --rows 1000000 [--autofaiss PYTHON] [--engines ours,flat,…]

`--vectors` is an index of real prompts with `lite`. Above its rows, the rows are drawn from a mixture around them: a real row, plus
noise of the real rows' covariance times a factor that is uniform from .3 to .9, scaled to length 1. Questions are drawn in the same
way and are not in the index.

Each engine runs in a process of its own, one after the other, with one thread for searching, and reads the same files. Peers are
asked with rising effort until they find at least .95 of the ten nearest, and at last .99.

autofaiss needs an older numpy: `python -m venv V && V/bin/pip install autofaiss==2.18.0 'numpy<2' 'setuptools<81' 'pyarrow<19'`,
then `--autofaiss V/bin/python`. hnswlib and usearch: `pip install hnswlib usearch`. Needs 6 bytes times rows times dimensions of
disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

if "--child" not in sys.argv:  # a peer's process needs nothing of ours
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RESULT = Path(__file__).resolve().parent / "results" / "search.json"
QUERIES = 500
K = 10
WANTED = (0.95, 0.99)
_BLOCK = 65_536
_NOISE = (0.3, 0.9)

Search = Callable[[Any, int], Any]


def draw(real: Any, rows: int, *, seed: int) -> Iterator[Any]:
    """Blocks of unit rows, float32: the real ones first, then the mixture around them."""
    rng = np.random.default_rng(seed)
    factor = np.linalg.cholesky(np.cov(real[::2].T) + 1e-8 * np.eye(real.shape[1])).astype(np.float32)
    for start in range(0, rows, _BLOCK):
        n = min(_BLOCK, rows - start)
        scale = rng.uniform(*_NOISE, (n, 1)).astype(np.float32)
        noise = rng.standard_normal((n, real.shape[1])).astype(np.float32) @ factor.T
        block = real[rng.integers(0, len(real), n)] + scale * noise
        own = max(min(len(real) - start, n), 0) if seed == 0 else 0
        block[:own] = real[start : start + own]
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def prepare(args: argparse.Namespace) -> None:
    """Write the vectors twice (ours as float16 shards, the peers' as one float32 file), the questions, and their exact answers."""
    from store.generation import open_generation
    from store.shards import write_shard

    if (args.work / "exact.npy").exists():
        return
    with open_generation(args.vectors) as generation:
        vectors = generation.vectors(generation.space)
        real = np.concatenate([block for _, block in vectors.blocks(_BLOCK)])
    needed = 6 * args.rows * real.shape[1]
    if shutil.disk_usage(args.work).free < 1.2 * needed:
        sys.exit(f"{args.work} has less than the {1.2 * needed / 1e9:.1f} GB free that this takes")
    questions = next(draw(real, QUERIES, seed=1))[:QUERIES]
    best_ids = np.full((QUERIES, K), -1, dtype=np.int64)
    best = np.full((QUERIES, K), -np.inf, dtype=np.float32)
    flat = np.lib.format.open_memmap(args.work / "rows.npy", "w+", np.float32, (args.rows, real.shape[1]))
    records = []
    for number, block in enumerate(draw(real, args.rows, seed=0)):
        start = number * _BLOCK
        records.append(write_shard(args.work, f"vectors/{number:05d}.npy", block, provenance={}))
        rows = np.load(args.work / records[-1].file).astype(np.float32)  # as they are stored, for all engines
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        flat[start : start + len(rows)] = rows
        scores = np.concatenate([best, questions @ rows.T], axis=1)
        ids = np.concatenate([best_ids, np.broadcast_to(np.arange(start, start + len(rows)), (QUERIES, len(rows)))], axis=1)
        order = np.argsort(-scores, axis=1)[:, :K]
        best, best_ids = np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
    flat.flush()
    np.save(args.work / "questions.npy", questions)
    (args.work / "shards.json").write_text(json.dumps([[r.file, r.rows, r.bytes, r.sha256] for r in records]), "utf-8")
    np.save(args.work / "exact.npy", best_ids)


def measure(search: Search, efforts: list[Any], work: Path) -> list[dict[str, Any]]:
    """For the least effort with each wanted recall: recall@10, and the milliseconds of single questions."""
    questions, exact = np.load(work / "questions.npy"), np.load(work / "exact.npy")
    found: list[dict[str, Any]] = []
    for effort in efforts:
        search(questions[:1], effort)
        times, hits = [], 0
        for question, ids in zip(questions, exact, strict=True):
            begin = time.perf_counter()
            answer = search(question[None], effort)
            times.append((time.perf_counter() - begin) * 1e3)
            hits += len(np.intersect1d(answer, ids))
        recall = hits / exact.size
        wanted = [floor for floor in WANTED if recall >= floor and all(entry["wanted"] < floor for entry in found)]
        if wanted or effort == efforts[-1]:
            p50, p99 = np.percentile(times, [50, 99]).round(3).tolist()
            found.append(
                {"wanted": max(wanted, default=0.0), "effort": effort, "recall_at_10": recall, "p50_ms": p50, "p99_ms": p99}
            )
        if recall >= WANTED[-1]:
            break
    return found


def memory_mib() -> dict[str, float]:
    """Resident memory of this process: its own pages and those mapped from files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return {name: int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def ours(work: Path) -> tuple[Search, list[Any], Callable[[], Any]]:
    """The planned index of imprompt."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from store.index_plan import plan_index
    from store.indexes import build_index_file, open_index
    from store.ivf_index import effort_of
    from store.manifest import ShardRecord
    from store.shards import ShardedVectors

    vectors = ShardedVectors(work, [ShardRecord(*record) for record in json.loads((work / "shards.json").read_text("utf-8"))])
    plan = plan_index(rows=len(vectors), dim=vectors.dim)
    kept = work / "ours.json"
    import msgspec

    from store.manifest import IndexInfo

    if kept.exists():
        info = msgspec.json.decode(kept.read_bytes(), type=IndexInfo)
    else:
        info = build_index_file(work, "ours.faiss", vectors, factory=plan.factory)
        kept.write_bytes(msgspec.json.encode(info))
    opened: dict[str, Any] = {}

    def search(question: Any, effort: Any) -> Any:
        return opened["index"].search(question, K, effort=effort_of(effort, plan.n_lists)).ids[0]

    def begin() -> Any:
        opened["index"] = open_index(work, info, vectors)
        return {"factory": plan.factory, "file_bytes": (work / "ours.faiss").stat().st_size, "predicted_bytes": plan.index_bytes}

    return search, [8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512], begin


def faiss_index(work: Path, factory: str, parameter: str) -> tuple[Search, list[Any], Callable[[], Any]]:
    """A FAISS index by its factory string, from its file."""
    import faiss

    path = work / f"{factory.replace(',', '_')}.faiss"
    if not path.exists():
        rows = np.load(work / "rows.npy", mmap_mode="r")
        index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(rows), _BLOCK):
            index.add(np.ascontiguousarray(rows[start : start + _BLOCK]))
        faiss.write_index(index, str(path))
    opened: dict[str, Any] = {}

    def search(question: Any, effort: Any) -> Any:
        params = faiss.SearchParametersHNSW(efSearch=effort) if parameter else None
        return opened["index"].search(question, K, params=params)[1][0]

    def begin() -> Any:
        opened["index"] = faiss.read_index(str(path))
        return {"factory": factory, "file_bytes": path.stat().st_size}

    return search, [16, 32, 64, 128, 256, 512] if parameter else [0], begin


def hnswlib_index(work: Path) -> tuple[Search, list[Any], Callable[[], Any]]:
    """hnswlib with the parameters of its README: M 16, ef_construction 200."""
    import hnswlib

    path = work / "hnswlib.bin"
    rows = np.load(work / "rows.npy", mmap_mode="r")
    if not path.exists():
        index = hnswlib.Index("ip", rows.shape[1])
        index.init_index(len(rows), ef_construction=200, M=16)
        for start in range(0, len(rows), _BLOCK):
            index.add_items(rows[start : start + _BLOCK], np.arange(start, min(start + _BLOCK, len(rows))))
        index.save_index(str(path))
    opened: dict[str, Any] = {}

    def search(question: Any, effort: Any) -> Any:
        opened["index"].set_ef(effort)
        return opened["index"].knn_query(question, K, num_threads=1)[0][0]

    def begin() -> Any:
        opened["index"] = hnswlib.Index("ip", rows.shape[1])
        opened["index"].load_index(str(path))
        return {"factory": "M 16, ef_construction 200", "file_bytes": path.stat().st_size}

    return search, [16, 32, 64, 128, 256, 512], begin


def usearch_index(work: Path) -> tuple[Search, list[Any], Callable[[], Any]]:
    """usearch with its defaults and float16, mapped from its file."""
    from usearch.index import Index

    path = work / "usearch.bin"
    rows = np.load(work / "rows.npy", mmap_mode="r")
    if not path.exists():
        index = Index(ndim=rows.shape[1], metric="ip", dtype="f16")
        for start in range(0, len(rows), _BLOCK):
            index.add(np.arange(start, min(start + _BLOCK, len(rows))), rows[start : start + _BLOCK])
        index.save(str(path))
    opened: dict[str, Any] = {}

    def search(question: Any, effort: Any) -> Any:
        opened["index"].expansion_search = effort
        return opened["index"].search(question[0], K, threads=1).keys

    def begin() -> Any:
        opened["index"] = Index.restore(str(path), view=True)
        return {"factory": "defaults, f16", "file_bytes": path.stat().st_size}

    return search, [16, 32, 64, 128, 256, 512], begin


def autofaiss_index(work: Path) -> tuple[Search, list[Any], Callable[[], Any]]:
    """What autofaiss chooses for the memory that ours takes with its vectors, with its own tuned parameters and more."""
    import faiss

    path = work / "autofaiss.faiss"
    if not path.exists():
        from autofaiss import build_index

        rows = np.load(work / "rows.npy", mmap_mode="r")
        megabytes = max(rows.size * 2 // 1_000_000, 100)
        build_index(
            rows,
            index_path=str(path),
            index_infos_path=str(work / "autofaiss.json"),
            max_index_memory_usage=f"{megabytes}MB",
            current_memory_available="12G",
            metric_type="ip",
            nb_cores=2,
            verbose=30,
        )
    opened: dict[str, Any] = {}

    def search(question: Any, effort: Any) -> Any:
        opened["space"].set_index_parameters(opened["index"], effort)
        return opened["index"].search(question, K)[1][0]

    def begin() -> Any:
        opened["index"] = faiss.read_index(str(path))
        opened["space"] = faiss.ParameterSpace()
        key = json.loads((work / "autofaiss.json").read_text("utf-8"))
        return {"factory": key.get("index_key", ""), "chosen": key.get("index_param", ""), "file_bytes": path.stat().st_size}

    key = json.loads((work / "autofaiss.json").read_text("utf-8")).get("index_key", "")
    if "HNSW" in key and "IVF" not in key:
        return search, [f"efSearch={n}" for n in (16, 32, 64, 128, 256, 512)], begin
    graph = ",quantizer_efSearch={n}" if "HNSW" in key else ""
    refine = ",k_factor_rf=4" if "Refine" in key else ""
    return search, [f"nprobe={n}{graph.format(n=2 * n)}{refine}" for n in (8, 16, 32, 64, 128, 256, 512)], begin


ENGINES: dict[str, Callable[[Path], tuple[Search, list[Any], Callable[[], Any]]]] = {
    "ours": ours,
    "flat": lambda work: faiss_index(work, "Flat", ""),
    "faiss-hnsw": lambda work: faiss_index(work, "HNSW32", "efSearch"),
    "hnswlib": hnswlib_index,
    "usearch": usearch_index,
    "autofaiss": autofaiss_index,
}


def child(name: str, work: Path) -> None:
    """Build where it is not built, then open in a second process and measure there."""
    built = time.perf_counter()
    search, efforts, begin = ENGINES[name](work)
    build_s = time.perf_counter() - built
    if build_s > 5:  # what the build left in memory is not the engine's: measure in a fresh process
        (work / f"{name}.build_s").write_text(str(build_s), "utf-8")
        os.execv(sys.executable, [sys.executable, __file__, "--child", name, "--work", str(work)])  # noqa: S606
    if name != "hnswlib":
        try:
            import faiss

            faiss.omp_set_num_threads(1)
        except ImportError:
            pass
    before = memory_mib()
    opening = time.perf_counter()
    about = begin()
    open_s = time.perf_counter() - opening
    results = measure(search, efforts, work)
    after = memory_mib()
    kept = work / f"{name}.build_s"
    print(
        json.dumps(
            {
                **about,
                "build_s": float(kept.read_text("utf-8")) if kept.exists() else build_s,
                "open_s": open_s,
                "memory_mib": after["RssAnon"] - before["RssAnon"],
                "mapped_mib": after["RssFile"] - before["RssFile"],
                "points": results,
            }
        )
    )


def main() -> None:
    """Parse, prepare, measure each engine in its own process, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the vectors and the indexes; they are kept")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--autofaiss", type=Path, help="the Python of an environment that has autofaiss")
    parser.add_argument("--engines", default="ours,flat,faiss-hnsw,hnswlib,usearch,autofaiss")
    args = parser.parse_args()
    if args.child:
        child(args.child, args.work)
        return
    from benchmarks.machine import machine

    args.work.mkdir(parents=True, exist_ok=True)
    prepare(args)
    result: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    measured: dict[str, Any] = {}
    for name in args.engines.split(","):
        python = str(args.autofaiss) if name == "autofaiss" else sys.executable
        command = [python, __file__, "--child", name, "--work", str(args.work)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        measured[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(measured[name], indent=1), flush=True)
    result[str(args.rows)] = {
        "machine": machine("faiss-cpu", "numpy"),
        "engines": result.get(str(args.rows), {}).get("engines", {}) | measured,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
