"""Build an index of a seeded sample of real prompts with `lite`, then query it cold and warm.

    python benchmarks/real_corpus.py --prompts PROMPTS.parquet --images FOLDER [--images FOLDER]
                                     [--take 20] --rows 100000 --index INDEX

Writes figures, no prompt and no image, to benchmarks/results/real_corpus.json. --show prints the
answers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import ROOT, machine

RESULT = ROOT / "benchmarks" / "results" / "real_corpus.json"
REPEATS = 5


def imprompt(*words: str) -> tuple[list[dict[str, Any]], float, float]:
    """Run the command line once; return its JSON lines, seconds, and peak memory in MiB."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "cli.py", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        out = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    return (
        [json.loads(line) for line in out.splitlines()],
        time.perf_counter() - begin,
        usage.ru_maxrss / 1024,
    )


def spread(seconds: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum of several runs, in seconds."""
    return {
        "min_s": min(seconds),
        "median_s": statistics.median(seconds),
        "max_s": max(seconds),
        "n": len(seconds),
    }


def build(args: argparse.Namespace, index: Path) -> dict[str, Any]:
    """Build like the command line, in its own process, and return seconds and peak memory."""
    from imprompt.encoders.registry import load_encoder, output_encoder
    from imprompt.indexer.build import build_index
    from imprompt.indexer.readers.sources import parse_corpus

    encoder = load_encoder("lite")
    begin = time.perf_counter()
    report = build_index(
        index,
        [parse_corpus(str(args.prompts), sample=args.rows, seed=0)],
        encoder,
        extra=[output_encoder(encoder)],
    )
    seconds = time.perf_counter() - begin
    if not report.built:
        sys.exit(f"{index} already holds this index; name an empty folder to measure its build")
    manifest = report.manifest
    sizes: dict[str, int] = {}
    for name, file in manifest.files.items():
        sizes[name.split("/")[0]] = sizes.get(name.split("/")[0], 0) + file.bytes
    return {
        "rows": manifest.rows,
        "funnel": manifest.funnel,
        "spaces": [spec.space for spec in manifest.encoders],
        "seconds": seconds,
        "encoding_s": report.encode_s,
        "encoding_prompts_per_s": manifest.rows / report.encode_s,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes": sizes,
        "bytes_in_all": sum(sizes.values()),
        "recall_at_10": {space: part.recall_at_10 for space, part in manifest.indexes.items()},
    }


def cold(image: Path, index: Path) -> dict[str, Any]:
    """Time one query from the shell against importing torch, in turn."""
    queries, imports, peaks = [], [], []
    for _ in range(REPEATS + 1):
        _, seconds, peak_mib = imprompt("query", str(image), "--index", str(index), "--json")
        queries.append(seconds)
        peaks.append(peak_mib)
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        imports.append(time.perf_counter() - begin)
    ratios = [query / torch for query, torch in zip(queries[1:], imports[1:], strict=True)]
    return {
        "query": spread(queries[1:]),
        "ratio_to_import_torch": statistics.median(ratios),
        "peak_rss_mib": max(peaks),
    }


def warm(images: list[Path], index: Path, *, show: bool) -> dict[str, Any]:
    """Time single queries in a process that has everything loaded."""
    from imprompt.core.errors import ImpromptError
    from imprompt.encoders.registry import load_encoder
    from imprompt.retriever import Question, Retriever
    from imprompt.store.index_version import open_version

    seconds = []
    with open_version(index) as version:
        retriever = Retriever(version, load_encoder("lite"))
        list(retriever.ask([Question(image=images[0], text=None)], 10))
        for image in images:
            begin = time.perf_counter()
            (answer,) = retriever.ask([Question(image=image, text=None)], 10)
            seconds.append(time.perf_counter() - begin)
            if isinstance(answer, ImpromptError):
                raise answer
            if show:
                print(image.name, answer.to_json(), sep="\n  ")
    return spread(seconds)


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--images", type=Path, action="append", required=True)
    parser.add_argument("--take", type=int, default=20, help="images a folder")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--index", type=Path, required=True, help="an empty folder for the index")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    from imprompt.images.image_files import find_images

    images = [path for folder in args.images for path in find_images([folder])[: args.take]]
    build_apart = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    result = {
        "machine": machine("torch", "faiss-cpu", "duckdb"),
        "command": f"python benchmarks/real_corpus.py --rows {args.rows}",
        "build": build_apart.submit(build, args, args.index).result(),
        "cold": cold(images[0], args.index),
        "warm": warm(images, args.index, show=args.show),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
