"""Cost of a corpus of 2 million to a billion prompts, from measured rates, for docs/scaling.md.

    python benchmarks/scaling.py [--core-hour 0.05] [--gpu-hour 1.00] [--gigabyte-month 0.10]

Reads the results of benchmarks/funnel.py, near_duplicates.py, resume.py and ray_actors.py and the
predictions of `imprompt.store.index_plan`, and writes the tables into docs/scaling.md, which states
the formulas.
Prices are assumptions; pass yours.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from imprompt.core.errors import ConfigError
from imprompt.store.index_plan import IndexPlan, plan_index

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scaling.md"
SIZES = (2_000_000, 14_000_000, 100_000_000, 1_000_000_000)
NIGHT_S = 10 * 3600
GPU_TEXTS_PER_S = 642
"""ViT-H/14 on a Titan RTX, as stated by clip-as-service: not measured here."""
_ARRAY_BYTES = 40
"""Of the arrays with one number a row: submissions, order, and what stands for each row."""
_MARKS = ("<!-- reckoned by benchmarks/scaling.py -->\n", "<!-- end -->\n")


@dataclass(frozen=True, slots=True)
class Rates:
    """The measured rates.

    Rows a second that one process reads and cleans, its peak memory and the rows it had at it, its
    temporary files per row, share of rows kept, real prompts a second of one core with `lite`, and
    the share of one actor's rate that each of two keeps.
    """

    read_per_s: float
    read_memory_bytes: float
    read_memory_rows: int
    read_files_a_row: float
    kept: float
    core_per_s: float
    kept_by_two: float


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a core-hour, a GPU-hour and a gigabyte-month, in one currency."""

    core_hour: float = 0.05
    gpu_hour: float = 1.00
    gigabyte_month: float = 0.10


def measured_rates() -> Rates:
    """Return the rates of the committed results."""
    results = ROOT / "benchmarks" / "results"
    funnel = json.loads((results / "funnel.json").read_text("utf-8"))["whole"]
    large = json.loads((results / "near_duplicates.json").read_text("utf-8"))["whole"]
    files = large["peak_files_mib"] * 2**20 + large["bytes"]["staged.duckdb"]
    runs = json.loads((results / "ray_actors.json").read_text("utf-8"))["runs"]
    one, two = (
        statistics.median(run["rows_per_s_after_it"] for run in runs[name])
        for name in ("Ray, 1 actor of 1 thread", "Ray, 2 actors of 1 thread")
    )
    lite = json.loads((results / "resume.json").read_text("utf-8"))["lite"]
    return Rates(
        read_per_s=funnel["rows_per_s"],
        read_memory_bytes=large["peak_rss_mib"] * 2**20,
        read_memory_rows=large["funnel"]["read"],
        read_files_a_row=files / large["funnel"]["read"],
        kept=funnel["funnel"]["kept"] / funnel["funnel"]["read"],
        core_per_s=lite["shard_rows"] / lite["shard_s"]["median"] / lite["threads"]["unbroken"],
        kept_by_two=two / one / 2,
    )


def reckoned(rates: Rates, prices: Prices) -> str:
    """Return the tables as Markdown."""
    return "\n".join(
        [*_rates(rates, prices), "", *_cpu_fleet(rates, prices), "", *_gpu_fleet(rates, prices), ""]
    )


def _rates(rates: Rates, prices: Prices) -> list[str]:
    return [
        f"- r_read = {rates.read_per_s:,.0f} rows/s of one process; {rates.kept:.0%} of the rows "
        "stay ([1.93 million rows](../benchmarks/results/funnel.md)).",
        f"- m = {rates.read_memory_bytes / 1e9:.1f} GB up to {rates.read_memory_rows / 1e6:.0f} "
        f"million rows, and t = {rates.read_files_a_row:,.0f} bytes a row ([ten million "
        f"rows](../benchmarks/results/near_duplicates.md)); beyond them {_ARRAY_BYTES} more bytes "
        "of memory a row, counted, not measured.",
        f"- `lite`: r = {rates.core_per_s:.0f} real prompts/s of one core ([the median "
        f"shard](../benchmarks/results/resume.md)), η = {rates.kept_by_two:.2f} ([one actor of "
        "one thread, and two](../benchmarks/results/ray_actors.md)).",
        f"- ViT-H/14 on a GPU: r = {GPU_TEXTS_PER_S} texts/s, as clip-as-service states it for a "
        "Titan RTX, and η = 1: **not measured here**.",
        f"- Prices, assumed: {prices.core_hour:.2f} a core-hour, {prices.gpu_hour:.2f} a "
        f"GPU-hour, {prices.gigabyte_month:.2f} a gigabyte-month of disk. Yours: `python "
        "benchmarks/scaling.py --core-hour … --gpu-hour … --gigabyte-month …`.",
    ]


def _cpu_fleet(rates: Rates, prices: Prices) -> list[str]:
    head = (
        "prompts kept | reading | its memory | its files | core-hours | cores for a night | cost | "
        "index stage | disk | a month"
    )
    lines = [
        "**`lite` (384 dimensions) on cores**",
        "",
        f"| {head} | memory to answer |",
        "|" + " ---: |" * 11,
    ]
    for rows in SIZES:
        seconds = rows / (rates.core_per_s * rates.kept_by_two)
        cost = f"{seconds / 3600 * prices.core_hour:,.0f}"
        lines.append(
            _row(
                rows,
                rates,
                prices,
                384,
                [_hours(seconds), f"{math.ceil(seconds / NIGHT_S):,}", cost],
            )
        )
    return lines


def _gpu_fleet(rates: Rates, prices: Prices) -> list[str]:
    head = (
        "prompts kept | reading | its memory | its files | GPU-hours | GPUs for a night | "
        "into the driver | cost | index stage | disk | a month"
    )
    lines = [
        "**ViT-H/14 (1,024 dimensions) on GPUs**",
        "",
        f"| {head} | memory to answer |",
        "|" + " ---: |" * 12,
    ]
    for rows in SIZES:
        seconds = rows / GPU_TEXTS_PER_S
        gpus = math.ceil(seconds / NIGHT_S)
        stream = f"{gpus * GPU_TEXTS_PER_S * 2 * (1024 + 384) / 1e6:,.1f} MB/s"
        cost = f"{seconds / 3600 * prices.gpu_hour:,.0f}"
        lines.append(_row(rows, rates, prices, 1024, [_hours(seconds), f"{gpus:,}", stream, cost]))
    return lines


def _row(rows: int, rates: Rates, prices: Prices, dim: int, middle: list[str]) -> str:
    corpus = rows / rates.kept
    plan = plan_within(rows, dim)
    cells = [
        f"{rows / 1e6:,.0f} M",
        _hours(corpus / rates.read_per_s),
        f"{_read_memory(corpus, rates) / 1e9:,.1f} GB",
        f"{corpus * rates.read_files_a_row / 1e9:,.0f} GB",
        *middle,
        f"{_hours(plan.build_s[0])} to {_hours(plan.build_s[1])}",
        f"{plan.disk_bytes / 1e9:,.0f} GB",
        f"{plan.disk_bytes / 1e9 * prices.gigabyte_month:,.1f}",
        f"{plan.memory_bytes / 1e9:,.1f} GB",
    ]
    return f"| {' | '.join(cells)} |"


def _read_memory(corpus: float, rates: Rates) -> float:
    more = max(corpus - rates.read_memory_rows, 0)
    return rates.read_memory_bytes + more * _ARRAY_BYTES


def plan_within(rows: int, dim: int) -> IndexPlan:
    """Plan the index for a machine with 24 GiB, doubled until it fits."""
    budget_bytes = 24 << 30
    while True:
        try:
            return plan_index(rows=rows, dim=dim, budget_bytes=budget_bytes)
        except ConfigError:
            budget_bytes *= 2


def _hours(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 100 * 3600 else f"{seconds / 3600:,.0f} h"


def with_tables(page: str, tables: str) -> str:
    """Return the page with the tables between its markers."""
    begin, end = _MARKS
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n{tables}\n{end}",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Compute and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = Prices()
    parser.add_argument("--core-hour", type=float, default=defaults.core_hour)
    parser.add_argument("--gpu-hour", type=float, default=defaults.gpu_hour)
    parser.add_argument("--gigabyte-month", type=float, default=defaults.gigabyte_month)
    args = parser.parse_args()
    tables = reckoned(measured_rates(), Prices(args.core_hour, args.gpu_hour, args.gigabyte_month))
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), tables), "utf-8")
    print(tables)


if __name__ == "__main__":
    main()
