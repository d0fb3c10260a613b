"""Search among 20,000 to 200,000 prompts: imprompt's index, all vectors scanned, hnswlib, usearch.

    python benchmarks/vectors.py --index INDEX --work FOLDER --rows 20000 100000 200000
    python cli.py embed --images PICTURES --space index --index INDEX --out IMAGES.npy
    python benchmarks/search_small.py --work FOLDER --images IMAGES.npy --rows 20000 100000 200000
                                      --peers PYTHON

`vectors.py` says what the rows and the 500 texts are. imprompt answers with its measured effort; a
peer with the least effort that finds as many of the ten nearest as imprompt, of texts and of images
each. Every engine is built and then opened in a process of its own, and they take turns: in three
rounds each answers 500 texts and 500 images one by one on one core, then images in batches with
one thread and with two. `--peers` is the Python that has hnswlib and usearch, see `search.py`.

Writes figures to benchmarks/results/search_small.json and search_small.md; sizes that are not
measured keep theirs.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import search
from benchmarks.search_engines import ENGINES, Engine, K, Opened

RESULT = Path(__file__).resolve().parent / "results" / "search_small.json"
PAGE = RESULT.with_suffix(".md")
NAMES = {
    "ours": "imprompt",
    "scan": "all vectors scanned (`SQfp16`)",
    "hnswlib": "hnswlib",
    "usearch": "usearch",
}
SINGLES = 500
BATCHES = (32, 1024, 10_000)
_RECALL_OF_OURS = "small-ours-recall.json"
_EFFORTS = range(16, 1025, 8)
_RESAMPLED = 2000


def _build_ours(factory: str | None, name: str) -> Callable[[Path], None]:
    """Build an index and measure its effort as `build-index` does."""

    def build(folder: Path) -> None:
        import msgspec

        from benchmarks.vectors import records_of, vectors_of
        from imprompt.store.check_queries import index_space
        from imprompt.store.index_plan import plan_index
        from imprompt.store.shards import write_row_sums

        work, rows = folder.parent, int(folder.name)
        vectors = vectors_of(work, rows)
        chosen = factory or plan_index(rows=rows, dim=vectors.dim).factory
        (work / "index").mkdir(exist_ok=True)
        write_row_sums(work, f"index/{name}-{rows}-rows.crc32", vectors)
        info, _ = index_space(work, f"{name}-{rows}", records_of(work, rows), factory=chosen)
        (folder / f"small-{name}.json").write_bytes(msgspec.json.encode(info))
        for file in info.all_files:
            target = folder / f"small-{name}-{Path(file).name}"
            target.unlink(missing_ok=True)
            target.hardlink_to(work / file)

    return build


def _open_ours(name: str) -> Callable[[Path], Opened]:
    def opened(folder: Path) -> Opened:
        import msgspec

        from benchmarks.vectors import records_of
        from imprompt.store.indexes import open_index
        from imprompt.store.manifest import IndexInfo
        from imprompt.store.shards import ShardedVectors

        work, rows = folder.parent, int(folder.name)
        sums = f"index/{name}-{rows}-rows.crc32"
        vectors = ShardedVectors(work, records_of(work, rows), sums=sums)
        content = (folder / f"small-{name}.json").read_bytes()
        info = msgspec.json.decode(content, type=IndexInfo)
        index = open_index(work, info, vectors)

        def ask(queries: Any, effort: Any, threads: int) -> Any:
            import faiss

            faiss.omp_set_num_threads(threads)
            return index.search(queries, K, effort=effort).ids

        return Opened(ask, [None], {"index": info.factory, "effort": round(info.effort, 3)})

    return opened


def _open_hnswlib(folder: Path) -> Opened:
    import hnswlib

    index = hnswlib.Index("ip", np.load(folder / "rows.npy", mmap_mode="r").shape[1])
    index.load_index(str(folder / "hnswlib.bin"))

    def ask(queries: Any, effort: Any, threads: int) -> Any:
        index.set_ef(effort)
        return index.knn_query(queries, K, num_threads=threads)[0]

    return Opened(ask, _EFFORTS, {"index": "M 16, ef_construction 200"})


def _open_usearch(folder: Path) -> Opened:
    from usearch.index import Index

    index = Index.restore(str(folder / "usearch.bin"), view=True)

    def ask(queries: Any, effort: Any, threads: int) -> Any:
        index.expansion_search = effort
        return index.search(queries if len(queries) > 1 else queries[0], K, threads=threads).keys

    return Opened(ask, _EFFORTS, {"index": "defaults, f16, mapped"})


SMALL_ENGINES = {
    "ours": Engine(
        _build_ours(None, "ours"), _open_ours("ours"), "small-ours-*", lambda _rows, _dim: 0
    ),
    "scan": Engine(
        _build_ours("SQfp16", "scan"), _open_ours("scan"), "small-scan-*", lambda _rows, _dim: 0
    ),
    "hnswlib": Engine(
        ENGINES["hnswlib"].build, _open_hnswlib, "hnswlib.bin", ENGINES["hnswlib"].predicted_bytes
    ),
    "usearch": Engine(
        ENGINES["usearch"].build, _open_usearch, "usearch.bin", ENGINES["usearch"].predicted_bytes
    ),
}


def measure(name: str, folder: Path, queries: dict[str, Any]) -> dict[str, Any]:
    """Open one engine in this process, choose its effort, and time it in rounds."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    before = search.memory_mib()
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak is counted from here
    opened = SMALL_ENGINES[name].open(folder)
    effort = _chosen(name, opened, folder, queries)
    found = {kind: _recall(opened, effort, folder, kind, queries[kind]) for kind in queries}
    if name == "ours":
        recalls = {kind: recall["mean"] for kind, recall in found.items()}
        (folder / _RECALL_OF_OURS).write_text(json.dumps(recalls), "utf-8")
    single: dict[str, list[float]] = {kind: [] for kind in queries}
    batches: dict[str, list[float]] = {}
    for number in range(search.ROUNDS):
        search.wait_for_turn()
        for kind, asked in queries.items():
            times = []
            for query in asked[:SINGLES]:
                began = time.perf_counter()
                opened.ask(query[None], effort, 1)
                times.append((time.perf_counter() - began) * 1e3)
            single[kind].append(float(np.median(times)))
        for threads in (1, 2):
            os.sched_setaffinity(0, cores[:threads])
            for size in BATCHES[: None if number == 0 else -1]:
                some = np.resize(queries["image"], (size, queries["image"].shape[1]))
                began = time.perf_counter()
                opened.ask(some, effort, threads)
                ms = (time.perf_counter() - began) * 1e3 / size
                batches.setdefault(f"{size} by {threads}", []).append(ms)
        os.sched_setaffinity(0, cores[:1])
    after = search.memory_mib()
    return {
        **opened.about,
        **({} if effort is None else {"effort": effort}),
        "recall_at_10": found,
        "single_ms": {kind: _spread(times) for kind, times in single.items()},
        "batch_ms_a_query": {name: _spread(times) for name, times in batches.items()},
        "own_mib": round(after["RssAnon"] - before["RssAnon"]),
        "peak_mib": round(after["VmHWM"] - before["VmRSS"]),
        "file_bytes": sum(
            path.stat().st_size
            for path in folder.glob(SMALL_ENGINES[name].files)
            if path.suffix != ".json"
        ),
    }


def _spread(times: list[float]) -> list[float]:
    """Return [median, least, greatest]."""
    return [round(value, 4) for value in (float(np.median(times)), min(times), max(times))]


def _chosen(name: str, opened: Opened, folder: Path, queries: dict[str, Any]) -> Any:
    """Return the least effort that finds as many as ours does, for each kind of query."""
    if name in ("ours", "scan"):
        return None
    wanted = json.loads((folder / _RECALL_OF_OURS).read_text("utf-8"))

    def suffices(effort: int) -> bool:
        return all(
            _recall(opened, effort, folder, kind, queries[kind])["mean"] >= wanted[kind]
            for kind in queries
        )

    efforts = opened.efforts
    return efforts[min(bisect.bisect_left(efforts, True, key=suffices), len(efforts) - 1)]


def _recall(opened: Opened, effort: Any, folder: Path, kind: str, queries: Any) -> dict[str, Any]:
    """Return the recall@10 of a batch, with the 95 % interval of resampled queries."""
    exact = np.load(folder / f"small-exact-{kind}.npy")
    answers = np.asarray(opened.ask(queries, effort, 1))
    of_each = np.array(
        [np.isin(right, ids).mean() for right, ids in zip(exact, answers, strict=True)]
    )
    rng = np.random.default_rng(0)
    means = of_each[rng.integers(0, len(of_each), (_RESAMPLED, len(of_each)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "mean": round(float(of_each.mean()), 5),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "n": len(of_each),
    }


def write_exact(work: Path, rows: int, queries: dict[str, Any]) -> None:
    """Write the exact ten nearest rows of every query."""
    from benchmarks.vectors import vectors_of

    stored = vectors_of(work, rows)
    all_rows = stored.block(0, len(stored))
    for kind, asked in queries.items():
        ids = [np.argpartition(-(query @ all_rows.T), K)[:K] for query in asked]
        np.save(work / str(rows) / f"small-exact-{kind}.npy", np.array(ids))


def child(args: argparse.Namespace) -> None:
    """Build or measure one engine in a process of its own; print its figures as JSON."""
    folder = args.work / str(args.rows[0])
    if args.child == "build":
        figures = search.build(SMALL_ENGINES[args.engine], folder)
    else:
        figures = measure(args.engine, folder, read_queries(args))
    print(json.dumps(figures))


def read_queries(args: argparse.Namespace) -> dict[str, Any]:
    """Return the texts and the images, (n, dim) unit rows each."""
    return {"text": np.load(args.work / "questions.npy"), "image": np.load(args.images)}


def command_of(args: argparse.Namespace, name: str, task: str, rows: int) -> list[str]:
    """Return the command line of `child`."""
    python = args.peers if name in ("hnswlib", "usearch") else Path(sys.executable)
    words = [str(python), __file__, "--child", task, "--engine", name, "--rows", str(rows)]
    return [*words, "--work", str(args.work), "--images", str(args.images)]


def measure_size(args: argparse.Namespace, rows: int) -> dict[str, Any]:
    """Build every engine and measure them by turns; return the figures of one size."""
    search.write_rows(args.work, rows)
    write_exact(args.work, rows, read_queries(args))
    built = {}
    for name in SMALL_ENGINES:
        words = command_of(args, name, "build", rows)
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        built[name] = json.loads(done.stdout.splitlines()[-1])
        print(rows, name, built[name], flush=True)
    commands = {name: command_of(args, name, "measure", rows) for name in SMALL_ENGINES}
    figures = search.in_turns(commands)
    return {name: {**figures[name], "build": built[name]} for name in SMALL_ENGINES}


def page(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    described = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    peers = ", ".join(f"{name} {value}" for name, value in result["peers"].items())
    lines = [
        "# Search among 20,000 to 200,000 prompts",
        "",
        "From `search_small.json`, by `benchmarks/vectors.py` and `benchmarks/search_small.py`, "
        "which writes this page.",
        "",
        f"{described}; {peers}. Nothing else was measured at the same time, but other programs "
        "used the two cores now and then.",
        "",
        f"Prompts and texts by `lite` (384 dimensions). The first {result['real_rows']:,} rows of "
        "every size are real prompts; beyond them rows are drawn from a mixture around the real "
        "ones. The texts are real prompts that no index holds, the images are real pictures. "
        "imprompt answers with the effort that `build-index` measures, hnswlib and usearch with "
        "the least effort that finds as many of the ten nearest, of texts and of images each. "
        "Times are medians of three rounds, the engines by turns, with the least and the greatest "
        "round; of 10,000 images at once there is one round.",
    ]
    for rows, engines in result["sizes"].items():
        lines += ["", f"## {int(rows):,} rows", "", "### Single queries, one core", ""]
        lines += [
            "| | index | recall@10 of texts | of images | a text | an image | file | build | "
            "memory to build | to answer |",
            f"| --- | --- |{' ---: |' * 8}",
        ]
        for name, found in engines.items():
            recalls = " | ".join(_recall_text(found["recall_at_10"][k]) for k in ("text", "image"))
            times = " | ".join(_ms(found["single_ms"][k]) for k in ("text", "image"))
            effort = f", effort {found['effort']}" if name != "scan" else ""
            lines.append(
                f"| {NAMES[name]} | {found['index']}{effort} | {recalls} | {times} | "
                f"{found['file_bytes'] / 1e6:.1f} MB | {found['build']['wall_s']:.1f} s | "
                f"{found['build']['peak_mib']:,} MiB | {found['peak_mib']:,} MiB |"
            )
        lines += ["", "### Images in batches, ms an image", ""]
        heads = [f"{size:,} by {n}" for n in ("one thread", "two") for size in BATCHES]
        lines += [f"| | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
        for name, found in engines.items():
            keys = [f"{size} by {threads}" for threads in (1, 2) for size in BATCHES]
            times = " | ".join(_range(found["batch_ms_a_query"][key]) for key in keys)
            lines.append(f"| {NAMES[name]} | {times} |")
    lines += [
        "",
        "*build* is wall time on two cores and includes measuring the effort; *memory to build* is "
        "private memory; *to answer* is the most that the process held above that before opening, "
        "with every page of files that it touched. *file* counts the index alone: imprompt also "
        "reads candidates from the stored vectors, 0.77 MB for 1,000 rows, which a version has "
        "anyway.",
        "",
        f"`n` is {result['n']['text']:,} texts and {result['n']['image']:,} images; in brackets "
        "95 % intervals over resampled queries.",
    ]
    return "\n".join(lines) + "\n"


def _recall_text(recall: dict[str, Any]) -> str:
    return f"{recall['mean']:.4f} ({recall['interval'][0]:.4f} to {recall['interval'][1]:.4f})"


def _ms(times: list[float]) -> str:
    return f"{times[0]:.2f} ms ({times[1]:.2f} to {times[2]:.2f})"


def _range(times: list[float]) -> str:
    return f"{times[0]:.2f} ({times[1]:.2f} to {times[2]:.2f})"


def main() -> None:
    """Parse, build and measure each engine in its own process, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="the folder of vectors.py")
    parser.add_argument("--images", type=Path, required=True, help="an .npy file of `embed`")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000, 200_000])
    parser.add_argument("--peers", type=Path, default=Path(sys.executable))
    parser.add_argument("--child", choices=["build", "measure"])
    parser.add_argument("--engine", choices=[*SMALL_ENGINES])
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    from benchmarks.machine import machine

    versions = (
        "import json, importlib.metadata as m;"
        "print(json.dumps({n: m.version(n) for n in ('hnswlib', 'usearch')}))"
    )
    peers = subprocess.run(
        [args.peers, "-c", versions], stdout=subprocess.PIPE, text=True, check=True
    )
    earlier = json.loads(RESULT.read_text("utf-8"))["sizes"] if RESULT.exists() else {}
    measured = {str(rows): measure_size(args, rows) for rows in args.rows}
    result = {
        "machine": machine("faiss-cpu", "numpy"),
        "peers": json.loads(peers.stdout),
        "real_rows": json.loads((args.work / "prompts.json").read_text("utf-8"))["real_rows"],
        "n": {kind: len(queries) for kind, queries in read_queries(args).items()},
        "sizes": dict(sorted((earlier | measured).items(), key=lambda size: int(size[0]))),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    PAGE.write_text(page(result), "utf-8")
    print(PAGE.read_text("utf-8"))


if __name__ == "__main__":
    main()
