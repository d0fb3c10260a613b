"""The cleaning funnel at scale: read, clean, dedupe and number a whole corpus, without vectors.

    python benchmarks/funnel.py --prompts PROMPTS.parquet --threshold 0.9 [--threshold 0.8 …]
                                [--limit N]

The first threshold is measured from the file to the finished `prompts.duckdb`; each further one
reuses the rows read. Every part runs in its own process, so that its peak memory is its own. Writes
figures, no prompts, to benchmarks/results/funnel.json and funnel.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import ROOT, machine
from imprompt.store import layout

RESULT = ROOT / "benchmarks" / "results" / "funnel.json"


def run(prompts: Path, staging: Path, threshold: float, limit: int | None) -> dict[str, Any]:
    """Read, dedupe and number; return the funnel, seconds of each stage, and peak memory."""
    from imprompt.indexer.cleaning_rules import Cleaning, Rules, read_unsafe_words, resolve_cleaning
    from imprompt.indexer.engine import LocalEngine
    from imprompt.indexer.journal import Journal
    from imprompt.indexer.numbering import number_prompts
    from imprompt.indexer.readers.sources import parse_corpus

    stages = Stages()
    words = read_unsafe_words()
    rules = Rules(resolve_cleaning(Cleaning(near_duplicates=threshold), words), words, no_tokens)
    began = time.perf_counter()
    with Journal(staging / layout.JOURNAL) as journal:
        source = parse_corpus(str(prompts), limit=limit)
        done = number_prompts(
            staging, [source], rules, journal, engine=LocalEngine(), progress=stages
        )
    seconds = time.perf_counter() - began
    return {
        "threshold": threshold,
        "funnel": done.funnel,
        "seconds": seconds,
        "stages_s": stages.seconds,
        "rows_per_s": done.funnel["read"] / seconds,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes": {
            name: (staging / name).stat().st_size for name in (layout.STAGED, layout.PROMPTS)
        },
    }


def no_tokens(texts: object) -> Any:
    """Stand in for the encoder: no rule of this benchmark counts tokens."""
    raise NotImplementedError(texts)


class Stages:
    """An `imprompt.core.protocols.Progress` that notes the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def start(self, label: str, total: int | None) -> Stage:  # noqa: ARG002 of the protocol
        return Stage(self.seconds, label.split(" sd-")[0])


class Stage:
    """A running stage."""

    def __init__(self, seconds: dict[str, float], label: str) -> None:
        self._seconds, self._label, self._began = seconds, label, time.perf_counter()

    def advance(self, n: int) -> None:  # noqa: ARG002 of the protocol
        return None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc: object) -> None:
        self._seconds[self._label] = (
            self._seconds.get(self._label, 0.0) + time.perf_counter() - self._began
        )


def table(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    whole, runs = result["whole"], sorted(result["runs"], key=lambda run: -float(run["threshold"]))
    facts = result["machine"]
    names = [name for name in whole["funnel"] if name not in ("read", "near duplicate", "kept")]
    lines = [
        "# The funnel at scale",
        "",
        f"`{result['command']}` on {facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} "
        f"GiB; commit {facts['commit']}; one run each.",
        "",
        f"{whole['funnel']['read']:,} rows from the Parquet file to the finished `prompts.duckdb` "
        f"at a threshold of {whole['threshold']}: {whole['seconds']:.0f} s, "
        f"{whole['rows_per_s']:,.0f} rows/s, peak memory {whole['peak_rss_mib'] / 1024:.2f} GiB.",
        "",
        "| stage | s |",
        "| --- | ---: |",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in whole["stages_s"].items()),
        "",
        f"| threshold | {' | '.join(names)} | near duplicate | kept | folding and numbering, s | "
        "peak GiB |",
        f"| --- {'| ---: ' * (len(names) + 4)}|",
    ]
    for run in runs:
        counts = run["funnel"]
        cells = [f"{counts.get(name, 0):,}" for name in (*names, "near duplicate", "kept")]
        folding = sum(
            seconds for name, seconds in run["stages_s"].items() if not name.startswith("Reading")
        )
        lines.append(
            f"| {run['threshold']} | {' | '.join(cells)} | {folding:.0f} | "
            f"{run['peak_rss_mib'] / 1024:.2f} |"
        )
    return "\n".join(lines) + "\n"


def measure(args: argparse.Namespace, staging: Path) -> list[dict[str, Any]]:
    """Run each threshold in its own process; `staging` keeps the rows read."""
    runs = []
    for threshold in args.threshold:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            runs.append(apart.submit(run, args.prompts, staging, threshold, args.limit).result())
        print(json.dumps(runs[-1]), flush=True)
        for path in (
            *staging.glob("prompts*"),
            *staging.glob("journal*"),
            *staging.glob("dropped*"),
        ):
            path.unlink()
        shutil.rmtree(staging / layout.SPILLED, ignore_errors=True)
    return runs


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--threshold", type=float, action="append", required=True)
    parser.add_argument(
        "--limit", type=int, help="the first rows only, to try it; nothing is written"
    )
    parser.add_argument(
        "--staging", type=Path, help="keep what was read here, to add thresholds in later runs"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="funnel-") as folder:
        runs = measure(args, args.staging or Path(folder))
    if args.staging and RESULT.exists():
        measured = {run["threshold"] for run in runs}
        before = json.loads(RESULT.read_text("utf-8"))["runs"]
        runs = [run for run in before if run["threshold"] not in measured] + runs
    command = "python benchmarks/funnel.py " + " ".join(
        f"--threshold {run['threshold']}" for run in runs
    )
    whole = next(
        run for run in runs if any(stage.startswith("Reading") for stage in run["stages_s"])
    )
    result = {
        "machine": machine("duckdb", "numpy", "pyarrow", "rensa"),
        "command": command,
        "whole": whole,
        "runs": runs,
    }
    if args.limit is None:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
        RESULT.with_suffix(".md").write_text(table(result), "utf-8")
    else:
        print(table(result))


if __name__ == "__main__":
    main()
