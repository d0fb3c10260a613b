"""The page and the plot of `benchmarks/growth.py`, from its result file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.search_page import machine_text

_HEAD = """# How the index stage grows

From `growth.json`, by `benchmarks/vectors.py` and `benchmarks/growth.py`, which writes this page
and the plot.

{machine}.

`lite`'s 384 dimensions, one run of each size, nothing else on the machine but where a line says
so. Up to 100,000 rows the planned index is a scan of everything, above it an inverted file with
codes of one bit a value; the plan's own ranges stand in brackets. A question is asked on one core
with the least effort that finds .95 of the ten nearest, or with the greatest. Opening is that of a
whole version: manifest, lengths of the files, prompts, vectors in two spaces, index, and 16
check queries.

![Growth of time, bytes and memory](growth.png)

| rows | index | building, processor | wall (plan) | peak memory (plan) | index (plan) \
| question (plan) | opening (range) | files |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def write_page(result_file: Path) -> None:
    """Write `growth.md` and `growth.png` next to the results."""
    result = json.loads(result_file.read_text("utf-8"))
    sizes = {int(size): figures for size, figures in result["sizes"].items()}
    machine = sizes[max(sizes)]["machine"]
    page = _HEAD.format(machine=f"{machine_text(machine)}, commit {machine['commit']}")
    page += "".join(_row(rows, figures) for rows, figures in sizes.items())
    page += _exponents(result.get("exponents", {}))
    page += _encoding(result.get("encoded", []), max(sizes))
    result_file.with_suffix(".md").write_text(page, "utf-8")
    draw(sizes, result.get("encoded", []), result_file.with_suffix(".png"))


def _row(rows: int, figures: dict[str, Any]) -> str:
    build, question = figures["build"], figures["question"]
    parts = f", {figures['parts']} parts" if figures["parts"] > 1 else ""
    low_s, high_s = figures["predicted_build_s"]
    low_ms, high_ms = figures["predicted_query_ms"]
    first, last = figures["open_range_ms"]
    cells = [
        f"{rows:,}",
        f"{figures['factory']}{parts}",
        f"{build['cpu_s']:,.0f} s",
        f"{build['wall_s']:,.0f} s ({low_s:,.0f} to {high_s:,.0f})",
        f"{build['peak_mib']:,} MiB ({figures['predicted_build_mib']:,})",
        f"{figures['index_bytes'] / 1e6:,.1f} MB ({figures['predicted_index_bytes'] / 1e6:,.1f})",
        f"{question['p50_ms']:.2f} ms, recall {question['recall_at_10']:.3f} ({low_ms:.1f} to "
        f"{high_ms:.1f})",
        f"{figures['open_ms']:.0f} ms ({first:.0f} to {last:.0f}), {figures['open_cpu_ms']:.0f} "
        "of processor",
        f"{figures['files']:,}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _exponents(fits: dict[str, list[float]]) -> str:
    names = {
        "build_cpu_s": "processor time of building",
        "build_peak_mib": "peak memory of building",
        "index_bytes": "bytes of the index",
        "question_ms": "time of a question",
        "open_ms": "time of opening",
    }
    if not fits:
        return ""
    laws = "; ".join(
        f"{names[name]} rows^{slope:.2f} (± {error:.2f})" for name, (slope, error) in fits.items()
    )
    return f"\nFrom 316,000 rows on, with the standard error of the fitted exponent: {laws}.\n"


def _encoding(points: list[list[float]], most: int) -> str:
    if not points:
        return ""
    rows, seconds = points[-1]
    rates = sorted(
        (after[0] - before[0]) / (after[1] - before[1])
        for before, after in zip([[0, 0.0], *points], points, strict=False)
    )
    undisturbed = rates[len(rates) * 3 // 4]
    hours, fewer = (most / rate / 3600 for rate in (rows / seconds, undisturbed))
    return (
        f"\n**Encoding** took {seconds:,.0f} s for {rows:,.0f} real prompts with `lite`: "
        f"{rows / seconds:,.0f} a second, shards between {rates[0]:,.0f} and {rates[-1]:,.0f} as "
        f"other work came and went, a quarter of them {undisturbed:,.0f} or more. *Extrapolated*, "
        f"not measured: {most:,} prompts take {hours:,.0f} hours at the mean rate and {fewer:,.0f} "
        "at that of the quickest quarter, beside which the index stage is small.\n"
    )


def draw(sizes: dict[int, Any], encoded: list[list[float]], path: Path) -> None:
    """Plot seconds, bytes and milliseconds over the rows, all axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    rows, figures = list(sizes), list(sizes.values())
    left, middle, right = (figure.add_subplot(1, 3, number) for number in (1, 2, 3))

    build_s = [size["build"]["cpu_s"] for size in figures]
    left.plot(rows, build_s, "o-", label="building the index, processor time")
    low_s, high_s = zip(*(size["predicted_build_s"] for size in figures), strict=True)
    left.fill_between(rows, low_s, high_s, alpha=0.15, label="the plan's range")
    if encoded:
        prompts, seconds = zip(*encoded, strict=True)
        left.plot(prompts, seconds, color="C1", lw=3, label="encoding, measured")
        last_s = seconds[-1] * rows[-1] / prompts[-1]
        ends = [prompts[-1], rows[-1]], [seconds[-1], last_s]
        left.plot(*ends, "--", color="C1", label="encoding, extrapolated")
    left.set_ylabel("seconds")

    index_mb = [size["index_bytes"] / 1e6 for size in figures]
    middle.plot(rows, index_mb, "o-", label="index on disk")
    predicted_mb = [size["predicted_index_bytes"] / 1e6 for size in figures]
    middle.plot(rows, predicted_mb, "k:", label="index on disk, by the plan")
    peak_mb = [size["build"]["peak_mib"] * 1.048576 for size in figures]
    middle.plot(rows, peak_mb, "s-", label="peak memory of building")
    middle.set_ylabel("megabytes")

    query_ms = [size["question"]["p50_ms"] for size in figures]
    right.plot(rows, query_ms, "o-", label="a question on one core, recall@10 at least .95")
    open_ms = [size["open_ms"] for size in figures]
    right.plot(rows, open_ms, "s-", label="opening a whole version")
    right.axhline(200, color="0.7", ls="--", lw=1)
    right.set_ylabel("milliseconds")

    for axes in (left, middle, right):
        axes.set(xscale="log", yscale="log", xlabel="prompts")
        axes.grid(alpha=0.3)
        axes.axvspan(min(rows), 100_000, color="0.95", zorder=0)
        axes.legend(frameon=False)
    figure.suptitle(
        "The index stage from 10,000 to 10 million prompts (grey: the planned index is a scan of "
        "everything)"
    )
    figure.savefig(path, dpi=100)
