"""Near duplicates with files instead of memory: against memory alone, and of ten million rows.

    python benchmarks/near_duplicates.py --prompts PROMPTS.parquet --scratch FOLDER [--rows N]

First the search for near duplicates alone, in memory (`tests/indexer/near_duplicates_in_memory.py`)
and as the product does it, in turn, each in its own process, over all prompts. Then the whole
funnel, from a Parquet file to the finished `prompts.duckdb`, over ten million rows that are made
from the prompts: the words of all prompts once as they are, then again and again with each word
replaced by another one of the corpus, by a permutation of its words that is drawn anew for each
round with the round as seed. So rounds share their words and lengths but hardly a prompt, and have
as many near duplicates as the corpus. FOLDER takes 8 GB and is emptied again. Writes figures, no
prompts, to benchmarks/results/near_duplicates.json and near_duplicates.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import funnel
from benchmarks.machine import ROOT, machine

RESULT = ROOT / "benchmarks" / "results" / "near_duplicates.json"
THRESHOLD = 0.9
REPEATS = 2
_READ_ROWS = 16_384


class Peaks:
    """The largest resident memory and unnamed temporary files of this process, ten times a second.

    A context manager.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.resident = self.anonymous = self.files = 0

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def to_json(self) -> dict[str, float]:
        """Return the peaks in MiB."""
        return {
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "peak_anonymous_mib": self.anonymous / 2**20,
            "peak_files_mib": self.files / 2**20,
        }

    def _sample(self) -> None:
        while not self._over.wait(0.1):
            status = Path("/proc/self/status").read_text("ascii").splitlines()
            kib = {line.split(":")[0]: line.split()[1] for line in status if line.endswith("kB")}
            self.anonymous = max(self.anonymous, 1024 * int(kib["RssAnon"]))
            self.files = max(self.files, sum(self._unnamed().values()))

    def _unnamed(self) -> dict[int, int]:
        """Return the bytes on disk of each open file in the folder that has no name."""
        sizes = {}
        for entry in Path("/proc/self/fd").iterdir():
            try:
                target, facts = str(entry.readlink()), entry.stat()
            except OSError:  # closed meanwhile
                continue
            if target.startswith(self._folder) and not facts.st_nlink:
                sizes[facts.st_ino] = facts.st_blocks * 512
        return sizes


def texts(prompts: Path) -> Iterator[list[str]]:
    """Yield all prompts in batches."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(prompts) as file:
        for batch in file.iter_batches(_READ_ROWS, columns=["prompt"]):
            yield batch.column(0).to_pylist()


def search(prompts: Path, folder: Path, *, in_memory: bool) -> dict[str, Any]:
    """Look for near duplicates once, either way."""
    import pyarrow.parquet as pq

    from imprompt.indexer.duplicates import drop_near_duplicates
    from imprompt.indexer.scratch_arrays import Scratch
    from tests.indexer.near_duplicates_in_memory import drop_in_memory

    counts = pq.read_table(prompts, columns=["n_submitted"])["n_submitted"].to_numpy()
    n_submitted = counts.astype(np.int64)
    stages = funnel.Stages()
    began = time.perf_counter()
    with Peaks(folder) as peaks, Scratch(folder) as scratch:
        if in_memory:
            kept_by = drop_in_memory(
                texts(prompts), n_submitted, threshold=THRESHOLD, progress=stages
            )
        else:
            kept_by, _ = drop_near_duplicates(
                texts(prompts), n_submitted, scratch, threshold=THRESHOLD, progress=stages
            )
        seconds = time.perf_counter() - began
    return {
        "in_memory": in_memory,
        "rows": len(kept_by),
        "dropped": int((kept_by != np.arange(len(kept_by))).sum()),
        "kept_by_sha256": hashlib.sha256(kept_by.astype("<i8").tobytes()).hexdigest(),
        "seconds": seconds,
        "stages_s": stages.seconds,
        **peaks.to_json(),
    }


def whole(prompts: Path, staging: Path) -> dict[str, Any]:
    """Run the whole funnel once."""
    with Peaks(staging) as peaks:
        result = funnel.run(prompts, staging, THRESHOLD, None)
    return {**result, **peaks.to_json()}


def make_rows(prompts: Path, rows: int, target: Path) -> None:
    """Write the rows that are made from the prompts; see the top."""
    import pyarrow
    import pyarrow.parquet as pq

    from imprompt.indexer.word_sets import word_list

    numbers: dict[str, int] = {}
    found = [
        np.array([numbers.setdefault(word, len(numbers)) for word in word_list(text)], np.int32)
        for batch in texts(prompts)
        for text in batch
    ]
    counts = pq.read_table(prompts, columns=["n_submitted"])["n_submitted"].to_numpy()
    known = np.array([*numbers], dtype=object)
    schema = pyarrow.schema({"prompt": pyarrow.string(), "n_submitted": pyarrow.int32()})
    with pq.ParquetWriter(target, schema) as file:
        for start in range(0, rows, len(found)):
            size = min(len(found), rows - start)
            seed = start // len(found)
            renamed = np.random.default_rng(seed).permutation(known) if seed else known
            for first in range(0, size, _READ_ROWS):
                last = min(first + _READ_ROWS, size)
                made = [" ".join(renamed[words]) for words in found[first:last]]
                file.write_table(pyarrow.table([made, counts[first:last]], schema=schema))


def apart(function: Any, *args: Any, **options: Any) -> Any:
    """Run a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *args, **options).result()


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    facts, runs, ten = result["machine"], result["runs"], result["whole"]
    lines = [
        "# Near duplicates in bounded memory",
        "",
        f"`{result['command']}` on {facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} "
        f"GiB; commit {facts['commit']}; threshold {THRESHOLD}.",
        "",
        f"## {runs[0]['rows']:,} real prompts, the search alone",
        "",
        f"In turn, {REPEATS} runs each; of all runs, what stands for each row is the same.",
        "",
        "| | s, each run | of those looking, dropping | peak memory, MiB | temporary files, MiB | "
        "dropped |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for in_memory in (True, False):
        same = [run for run in runs if run["in_memory"] == in_memory]
        cells = [
            "in memory" if in_memory else "with files",
            ", ".join(f"{run['seconds']:.1f}" for run in same),
            "; ".join(
                " + ".join(f"{seconds:.1f}" for seconds in run["stages_s"].values()) for run in same
            ),
            f"{max(run['peak_rss_mib'] for run in same):,.0f}",
            f"{max(run['peak_files_mib'] for run in same):,.0f}",
            f"{same[0]['dropped']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    counts = ten["funnel"]
    per_row = ten["peak_files_mib"] * 2**20 / counts["read"]
    lines += [
        "",
        f"With files it takes {result['ratio']:.2f} times as long (median of either).",
        "",
        f"## {counts['read']:,} rows, from Parquet to `prompts.duckdb`",
        "",
        f"One run: {ten['seconds']:.0f} s, {ten['rows_per_s']:,.0f} rows/s; {counts['kept']:,} "
        f"kept, {counts['near duplicate']:,} near duplicates, {counts['duplicate']:,} duplicates. "
        f"Peak memory {ten['peak_rss_mib'] / 1024:.2f} GiB, of which "
        f"{ten['peak_anonymous_mib'] / 1024:.2f} GiB at most are not pages of files. Temporary "
        f"files of the search {ten['peak_files_mib'] / 1024:.2f} GiB, {per_row:.0f} bytes a row; "
        f"`staged.duckdb` {ten['bytes']['staged.duckdb'] / 2**30:.2f} GiB.",
        "",
        "| stage | s |",
        "| --- | ---: |",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in ten["stages_s"].items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    args = parser.parse_args()
    staging, made = args.scratch / "staging", args.scratch / "made.parquet"
    staging.mkdir(parents=True, exist_ok=True)
    runs = []
    for run in range(2 * REPEATS):
        runs.append(apart(search, args.prompts, staging, in_memory=run % 2 == 0))
        print(json.dumps(runs[-1]), flush=True)
    if len({run["kept_by_sha256"] for run in runs}) != 1:
        sys.exit("The two ways keep different rows.")
    memory, files = (
        statistics.median(run["seconds"] for run in runs if run["in_memory"] == in_memory)
        for in_memory in (True, False)
    )
    apart(make_rows, args.prompts, args.rows, made)
    result = {
        "machine": machine("duckdb", "numpy", "pyarrow", "rensa"),
        "command": f"python benchmarks/near_duplicates.py --rows {args.rows}",
        "runs": runs,
        "ratio": files / memory,
        "whole": apart(whole, made, staging),
    }
    shutil.rmtree(staging)
    made.unlink()
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    RESULT.with_suffix(".md").write_text(page(result), "utf-8")
    print(RESULT.with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
