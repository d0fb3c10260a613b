"""Encode rate of a `lite` build on Ray, by one and two actors of one thread, against one thread.

    python benchmarks/ray_actors.py --rows 8192 --rounds 3

The same rows, shards and build each time, in turn, in one run; the rows of every build are compared
with the first. Run it on an idle machine: with two cores, two actors take both, and the command
itself needs some.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from imprompt.core.progress import SILENT
from imprompt.core.protocols import CorpusSource, Progress, ProgressTask

RESULTS = Path(__file__).resolve().parent / "results" / "ray_actors.json"
SHARD_ROWS = 128
LEAST_SHARDS = 24
ENGINES = {"local, 1 thread": 0, "Ray, 1 actor of 1 thread": 1, "Ray, 2 actors of 1 thread": 2}


class Encoding(Progress, ProgressTask):
    """Notes when encoding begins and when each shard arrives."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.rows: list[int] = []
        self._on = False

    def start(self, label: str, total: int | None) -> ProgressTask:  # noqa: ARG002 of the protocol
        self._on = label.startswith("Encoding")
        if not self._on:
            return SILENT
        self.times.append(time.perf_counter())
        return self

    def advance(self, n: int) -> None:
        self.times.append(time.perf_counter())
        self.rows.append(n)

    def __enter__(self) -> ProgressTask:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def one_build(source: CorpusSource, actors: int) -> dict[str, Any]:
    """Build once; return the seconds until the first shard, the rate from then on, and overall.

    Shards come from actors in bursts, so the rate is the slope of a least-squares line through all
    arrivals.
    """
    from imprompt.encoders.registry import load_encoder, output_encoder
    from imprompt.indexer.build import BuildOptions, build_index
    from imprompt.indexer.engine import Engine, LocalEngine
    from imprompt.indexer.ray_engine import NamedSpaces, RayEngine
    from imprompt.indexer.ray_session import ray_cluster

    def build(engine: Engine) -> dict[str, Any]:
        noted, encoder = Encoding(), load_encoder("lite", device="cpu")
        extra = [output_encoder(encoder, device="cpu")]
        with tempfile.TemporaryDirectory(prefix="ray-actors-") as folder:
            options = BuildOptions(shard_rows=SHARD_ROWS)
            report = build_index(
                Path(folder),
                [source],
                encoder,
                options=options,
                extra=extra,
                engine=engine,
                progress=noted,
            )
        began, first, last = noted.times[0], noted.times[1], noted.times[-1]
        slope, _ = np.polyfit(noted.times[1:], np.cumsum(noted.rows), 1)
        return {
            "first_shard_s": first - began,
            "rows_per_s_after_it": float(slope),
            "rows_per_s": sum(noted.rows) / (last - began),
            "rows": report.manifest.rows,
            "rows_digest": report.manifest.rows_digest,
            "shards": [
                shard.sha256 for shards in report.manifest.shards.values() for shard in shards
            ],
        }

    if actors == 0:
        return build(LocalEngine())
    with ray_cluster("", device="cpu", actor_cpus=1, actors=actors) as cluster:
        return build(RayEngine(cluster, NamedSpaces("lite", device="cpu")))


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Run all engines in turn, `rounds` times."""
    from benchmarks.machine import machine
    from imprompt.encoders.torch_devices import use_threads
    from imprompt.indexer.readers.sampling import first_rows
    from imprompt.indexer.readers.starter import starter_source

    use_threads(1)
    source = first_rows(starter_source(), rows)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    for number in range(rounds):
        for name, actors in ENGINES.items():
            runs[name].append(one_build(source, actors))
            print(
                f"round {number + 1}, {name}: {runs[name][-1]['rows_per_s_after_it']:.1f} rows/s",
                flush=True,
            )
    whole = runs["local, 1 thread"][0]
    same_rows = all(
        run["rows_digest"] == whole["rows_digest"] for builds in runs.values() for run in builds
    )
    same_bytes = all(run["shards"] == whole["shards"] for builds in runs.values() for run in builds)
    return {
        "machine": machine("ray", "torch", "numpy"),
        "rows": whole["rows"],
        "shard_rows": SHARD_ROWS,
        "rounds": rounds,
        "load_average_at_end": os.getloadavg()[0],
        "same_rows": same_rows,
        "same_bytes": same_bytes,
        "runs": {
            name: [{k: v for k, v in run.items() if k != "shards"} for run in builds]
            for name, builds in runs.items()
        },
    }


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    facts = result["machine"]
    base = statistics.median(
        run["rows_per_s_after_it"] for run in result["runs"]["Ray, 1 actor of 1 thread"]
    )
    command = f"python benchmarks/ray_actors.py --rows {result['rows']} --rounds {result['rounds']}"
    lines = [
        "# Encode rate with one and two actors of Ray",
        "",
        f"`{command}`: {result['rows']:,} prompts of the starter corpus, by `lite` into both of "
        f"its spaces, shards of {result['shard_rows']} rows, {result['rounds']} builds of each "
        "kind in turn. Median (least to most).",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; Python "
        f"{facts['python']}, Ray {facts['ray']}, torch {facts['torch']}; commit "
        f"{facts['commit']}; load average at the end {result['load_average_at_end']:.1f}.",
        "",
        "| engine | rows/s once the first shard is there | of one actor's | until the first "
        "shard | rows/s with that |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, runs in result["runs"].items():
        rate = statistics.median(run["rows_per_s_after_it"] for run in runs)
        lines.append(
            f"| {name} | {spread(runs, 'rows_per_s_after_it', 1)} | {rate / base:.2f} | "
            f"{spread(runs, 'first_shard_s', 1)} s | {spread(runs, 'rows_per_s', 1)} |"
        )
    lines += [
        "",
        f"Rows of all builds are {'' if result['same_rows'] else 'NOT '}the same, "
        f"the bytes of their vectors are {'' if result['same_bytes'] else 'not '}the same.",
        "",
        "The rate is the slope of a line through the arrivals of all shards.",
        "Until the first shard is there, Ray starts its actors and these import torch and read "
        "the weights: once a build.",
        "",
    ]
    return "\n".join(lines)


def spread(runs: list[dict[str, Any]], name: str, digits: int) -> str:
    """Return median, minimum and maximum of one figure."""
    values = [run[name] for run in runs]
    median, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({least} to {most})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        help="the JSON file; a page of the same name stands beside it",
    )
    args = parser.parse_args()
    if args.rows < LEAST_SHARDS * SHARD_ROWS:
        parser.error(f"--rows is at least {LEAST_SHARDS * SHARD_ROWS}: fewer shards give no rate")
    result = measure(args.rows, args.rounds)
    args.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(page(result), "utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
