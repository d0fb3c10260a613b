"""Search among many vectors: imprompt, FAISS flat and HNSW, hnswlib, usearch, autofaiss.

    python benchmarks/vectors.py --index INDEX --work FOLDER --rows 100000 1000000
    python benchmarks/search.py --work FOLDER --rows 1000000 [--peers PYTHON] [--autofaiss PYTHON]
                                [--engines ours,flat,…] [--build]

`vectors.py` runs once and says what the vectors are. `--build` builds the missing indexes and
measures nothing. Without it, each engine is opened in its own process, on one core, and they take
turns, so that other load on the machine meets all of them: in three rounds each answers the same
500 single queries, with rising effort until it finds .99 of the ten nearest (ours: .9999). Ours is
also queried with all cores if it has parts; with queries drawn like the rows beyond the real ones
(`drawn`); and with its vectors on disk instead of in the page cache (`cold`).

hnswlib and usearch: `python -m venv P && P/bin/pip install hnswlib usearch`, then `--peers
P/bin/python`. autofaiss needs an older numpy and FAISS: `pip install autofaiss==2.18.0 'numpy<2'
'setuptools<81' 'pyarrow<19' faiss-cpu==1.12.0` in another venv. The peers read one float32 file: 4
bytes times rows times dimensions of disk, and as much again for each of their indexes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.search_engines import ENGINES, Engine

RESULT = Path(__file__).resolve().parent / "results" / "search.json"
ROUNDS = 3
COLD = 50
WANTED, ENOUGH, OURS_ENOUGH = 0.95, 0.99, 0.9999
_PEERS = ("hnswlib", "usearch")
_BLOCK = 65_536
_WATCHED_EVERY_S = 0.05


def build(engine: Engine, folder: Path) -> dict[str, Any]:
    """Build one engine's index in this process; return its cost.

    `peak_mib` is private memory, without mapped files.
    """
    own, done = [memory_mib()["RssAnon"]], threading.Event()

    def watch() -> None:
        while not done.wait(_WATCHED_EVERY_S):
            own.append(memory_mib()["RssAnon"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        engine.build(folder)
    finally:
        done.set()
        watcher.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(max(own) - own[0]),
    }


def measure(
    name: str,
    folder: Path,
    questions: Any,
    exact: Any,
    *,
    enough: float,
    turn: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Open one engine in this process and query it, with rising effort until it finds `enough`.

    `turn` waits before each round.
    """
    limit_threads()
    before = memory_mib()
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak is counted from here
    began = time.perf_counter()
    opened = ENGINES[name].open(folder)
    open_s = time.perf_counter() - began
    own = memory_mib()["RssAnon"]
    rounds = []
    for _ in range(ROUNDS):
        turn()
        curve = []
        for effort in opened.efforts:
            opened.ask(questions[:1], effort)
            curve.append(ask_all(opened.ask, questions, exact, effort))
            own = max(own, memory_mib()["RssAnon"])
            if curve[-1][1] >= enough:
                break
        rounds.append(curve)
    after = memory_mib()
    return {
        **opened.about,
        "open_s": round(open_s, 4),
        "own_mib": round(own - before["RssAnon"], 1),
        "mapped_mib": round(after["RssFile"] - before["RssFile"], 1),
        "peak_mib": round(after["VmHWM"] - before["VmRSS"], 1),
        "file_bytes": sum(
            path.stat().st_size
            for path in folder.glob(ENGINES[name].files)
            if path.suffix != ".json"
        ),
        "curve": [
            _point(effort, asked) for effort, *asked in zip(opened.efforts, *rounds, strict=False)
        ],
    }


def _point(effort: Any, rounds: Sequence[tuple[list[float], float]]) -> dict[str, Any]:
    medians = [float(np.median(times)) for times, _ in rounds]
    return {
        "effort": effort,
        "recall_at_10": round(rounds[0][1], 4),
        "p50_ms": round(float(np.median(medians)), 4),
        "p50_range_ms": [round(min(medians), 4), round(max(medians), 4)],
        "p99_ms": round(float(np.median([np.percentile(times, 99) for times, _ in rounds])), 4),
    }


def ask_all(ask: Any, questions: Any, exact: Any, effort: Any) -> tuple[list[float], float]:
    """Return the milliseconds of each query, and the recall@10 of all."""
    times, hits = [], 0
    for question, ids in zip(questions, exact, strict=True):
        began = time.perf_counter()
        answer = ask(question[None], effort)
        times.append((time.perf_counter() - began) * 1e3)
        hits += len(np.intersect1d(answer, ids))
    return times, hits / exact.size


def measure_cold(folder: Path) -> dict[str, Any]:
    """Measure ours with its vectors not in the page cache: a few queries, once, at effort for .95.

    Reading a row also loads its neighbours on disk, so that after some hundred queries most of the
    vectors are in memory.
    """
    efforts = json.loads(RESULT.read_text("utf-8"))[folder.name]["engines"]["ours"]["curve"]
    effort = next(
        (point["effort"] for point in efforts if point["recall_at_10"] >= WANTED),
        efforts[-1]["effort"],
    )
    for path in folder.glob("ours*.faiss"):
        path.read_bytes()
    for path in sorted((folder.parent / "vectors").glob("*.npy")):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    opened = ENGINES["ours"].open(folder)
    questions, exact = (
        np.load(folder.parent / "questions.npy")[:COLD],
        np.load(folder / "exact.npy")[:COLD],
    )
    times, recall = ask_all(opened.ask, questions, exact, effort)
    p50, p90 = np.percentile(times, [50, 90]).round(2).tolist()
    return {
        "effort": effort,
        "questions": COLD,
        "recall_at_10": recall,
        "p50_ms": p50,
        "p90_ms": p90,
    }


def limit_threads() -> None:
    """Make FAISS answer in the calling thread."""
    try:
        import faiss

        faiss.omp_set_num_threads(1)
    except ImportError:
        pass


def memory_mib() -> dict[str, float]:
    """Return the resident memory of this process: private, mapped, sum, and peak."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines()
    )
    return {
        name: int(fields[name].split()[0]) / 1024
        for name in ("RssAnon", "RssFile", "VmRSS", "VmHWM")
    }


def write_rows(work: Path, rows: int) -> None:
    """Write the rows as one float32 file, for the peers."""
    from benchmarks.vectors import vectors_of

    path = work / str(rows) / "rows.npy"
    if path.exists():
        return
    vectors = vectors_of(work, rows)
    partial = path.with_name("rows.partial.npy")
    flat = np.lib.format.open_memmap(partial, "w+", np.float32, (rows, vectors.dim))
    for start, block in vectors.blocks(_BLOCK):
        flat[start : start + len(block)] = block
    flat.flush()
    partial.rename(path)


def child(args: argparse.Namespace) -> None:
    """Measure one engine in a process of its own; print its figures as a line of JSON."""
    folder = args.work / str(args.rows)
    if args.child == "build":
        figures = build(ENGINES[args.engines], folder)
    elif args.child == "cold":
        figures = measure_cold(folder)
    else:
        if args.child != "all-cores":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        questions, exact = np.load(args.work / "questions.npy"), np.load(folder / "exact.npy")
        if args.child == "drawn":
            from benchmarks.vectors import drawn_questions

            questions, exact = drawn_questions(args.work, args.rows)
        if args.child == "one-core":
            enough = OURS_ENOUGH if args.engines == "ours" else ENOUGH
            figures = measure(
                args.engines, folder, questions, exact, enough=enough, turn=wait_for_turn
            )
        else:
            figures = measure(args.engines, folder, questions, exact, enough=WANTED)
    print(json.dumps(figures))


def wait_for_turn() -> None:
    """Wait until `in_turns` gives this process its turn."""
    print("ready", flush=True)
    sys.stdin.readline()


def command_of(args: argparse.Namespace, name: str, task: str) -> list[str]:
    """Return the command line of `child`."""
    python = (
        args.peers
        if name in _PEERS
        else args.autofaiss
        if name == "autofaiss"
        else Path(sys.executable)
    )
    return [
        str(python),
        __file__,
        "--child",
        task,
        "--engines",
        name,
        "--work",
        str(args.work),
        "--rows",
        str(args.rows),
    ]


def run(args: argparse.Namespace, name: str, task: str) -> dict[str, Any]:
    """Return the figures of `child`."""
    process = subprocess.run(
        command_of(args, name, task), stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return figures


def in_turns(commands: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Return the figures of each engine: all are open, one at a time is queried.

    Args:
        commands: the command line of each engine, whose process prints "ready" before each of its
            rounds and waits for a line, and prints its figures at the end.
    """
    figures = {}
    with contextlib.ExitStack() as processes:
        children: dict[str, subprocess.Popen[str]] = {}
        for name, words in commands.items():
            children[name] = processes.enter_context(
                subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            _next_line(children[name])
        for _ in range(ROUNDS):
            for name, process in children.items():
                print(file=process.stdin, flush=True)
                if (line := _next_line(process)) != "ready":
                    figures[name] = json.loads(line)
    return figures


def _next_line(process: subprocess.Popen[str]) -> str:
    """Return the next line of JSON, skipping the output of libraries."""
    for line in process.stdout or ():
        if line.startswith(("ready", "{")):
            return line.strip()
    sys.exit(f"{process.args!r} ended with {process.wait()}")


def build_missing(args: argparse.Namespace, name: str) -> None:
    """Build the index of one engine if missing."""
    cost = args.work / str(args.rows) / f"{name}.build.json"
    if not cost.exists():
        if name not in ("ours", "tight"):
            write_rows(args.work, args.rows)
        cost.write_text(json.dumps(run(args, name, "build")), "utf-8")
        print(name, args.rows, cost.read_text("utf-8"), flush=True)


def record(rows: int, name: str, figures: dict[str, Any], work: Path) -> None:
    """Merge one engine's figures into the result file."""
    from benchmarks.machine import machine

    result: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    size = result.setdefault(str(rows), {"engines": {}})
    size["vectors"] = json.loads((work / "prompts.json").read_text("utf-8"))
    size["engines"][name] = figures | {"machine": machine("faiss-cpu", "numpy")}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(rows, name, json.dumps(figures), flush=True)


def main() -> None:
    """Parse, build or measure each engine in its own process, write results, page and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", choices=["build", "one-core", "all-cores", "drawn", "cold"])
    parser.add_argument(
        "--work",
        type=Path,
        help="the folder of benchmarks/vectors.py; the indexes are kept there, too",
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--engines", default="ours,flat,faiss-hnsw,hnswlib,usearch,autofaiss")
    parser.add_argument(
        "--peers",
        type=Path,
        default=Path(sys.executable),
        help="the Python that has hnswlib and usearch",
    )
    parser.add_argument(
        "--autofaiss", type=Path, help="the Python of an environment that has autofaiss"
    )
    parser.add_argument(
        "--build", action="store_true", help="build what is missing and measure nothing"
    )
    parser.add_argument(
        "--page", action="store_true", help="write page and plot from the results that are there"
    )
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    if not args.page:
        names = args.engines.split(",")
        for name in names:
            build_missing(args, name)
        if not args.build:
            commands = {name: command_of(args, name, "one-core") for name in names}
            for name, figures in in_turns(commands).items():
                record_engine(args, name, figures)
    if not args.build:
        from benchmarks.search_page import write_page

        write_page(RESULT)


def record_engine(args: argparse.Namespace, name: str, figures: dict[str, Any]) -> None:
    """Record one engine's figures at one size; of ours also those measured alone."""
    cost = args.work / str(args.rows) / f"{name}.build.json"
    figures |= {
        "build": json.loads(cost.read_text("utf-8")),
        "predicted_bytes": ENGINES[name].predicted_bytes(args.rows, 384),
    }
    record(args.rows, name, figures, args.work)
    if name == "ours":
        if figures["parts"] > 1:
            figures["all_cores"] = run(args, name, "all-cores")["curve"]
        if args.rows > json.loads((args.work / "prompts.json").read_text("utf-8"))["real_rows"]:
            figures["drawn"] = run(args, name, "drawn")["curve"]
        record(args.rows, name, figures | {"cold": run(args, name, "cold")}, args.work)


if __name__ == "__main__":
    main()
