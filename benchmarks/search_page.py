"""The page and the plot of `benchmarks/search.py`, from its result file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = {
    "ours": "ours",
    "tight": "ours, planned for 4 GiB",
    "flat": "FAISS `Flat`, float32",
    "faiss-hnsw": "FAISS HNSW",
    "hnswlib": "hnswlib",
    "usearch": "usearch",
    "autofaiss": "autofaiss's choice",
}
WANTED = (0.95, 0.99)
_HEAD = """# Search among many vectors

From `search.json`, by `benchmarks/vectors.py` and `benchmarks/search.py`, which writes this page
and the plot.

{machine}. Nothing else ran while an engine was asked; the indexes were built beside other work.

One core for every engine, 500 single questions in three rounds, the engines of a size by turns:
the median of the rounds' medians, and the least and greatest of them. The questions are real
prompts by `lite` (384 dimensions) that no index holds. The first rows are real prompts, too;
beyond them rows are drawn from a mixture around the real ones. Among {compared:,} real rows the
median cosine of a question to its nearest row and to its tenth nearest is {real_cosines}, among as
many of the mixture {mixture_cosines}.

*own* is the memory that the process took for itself above that before opening, at most; *mapped*
what it touched of files, which the operating system keeps where there is room; *peak* both
together.

20,000 to 200,000 rows are in [another comparison](search_small.md), with pictures as queries, too.

![Recall and time of every engine](search.png)
"""


def write_page(result_file: Path) -> None:
    """Write `search.md` and `search.png` next to the results."""
    result = json.loads(result_file.read_text("utf-8"))
    sizes = {
        int(size): figures
        for size, figures in sorted(result.items(), key=lambda item: int(item[0]))
    }
    last = sizes[max(sizes)]
    about = last["vectors"]
    machine = next(iter(last["engines"].values()))["machine"]
    page = _HEAD.format(
        machine=machine_text(machine),
        compared=about["compared_rows"],
        real_cosines=" and ".join(f"{about['real'][k][1]:.2f}" for k in ("1", "10")),
        mixture_cosines=" and ".join(f"{about['mixture'][k][1]:.2f}" for k in ("1", "10")),
    )
    page += "".join(
        _section(size, figures["engines"], figures["vectors"]["real_rows"])
        for size, figures in sizes.items()
    )
    result_file.with_suffix(".md").write_text(page, "utf-8")
    draw(sizes, result_file.with_suffix(".png"))


def machine_text(machine: dict[str, Any]) -> str:
    """Return CPU, memory and versions in one line, without the commit."""
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("faiss-cpu", "duckdb", "numpy") if name in machine
    )
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"Python {machine['python']}, {versions}"
    )


def point_for(engine: dict[str, Any], recall: float) -> dict[str, Any] | None:
    """Return the point of least effort with this recall."""
    return next((point for point in engine["curve"] if point["recall_at_10"] >= recall), None)


def time_for(engine: dict[str, Any], recall: float) -> float | None:
    """Return the milliseconds for exactly this recall, interpolated.

    None if no point is below it, or none above.
    """
    before = None
    for point in engine["curve"]:
        if point["recall_at_10"] >= recall:
            if before is None:
                return None
            share = (recall - before["recall_at_10"]) / (
                point["recall_at_10"] - before["recall_at_10"]
            )
            return float(before["p50_ms"] * (point["p50_ms"] / before["p50_ms"]) ** share)
        before = point
    return None


def _section(rows: int, engines: dict[str, Any], n_real: int) -> str:
    lines = [
        f"\n## {rows:,} rows\n",
        f"{min(n_real, rows):,} of them real; commit {engines['ours']['machine']['commit']}.\n",
        "| | index | recall@10 | a question, p50 | p99 | p50 at recall .99 | own | mapped | peak "
        "| file | opening |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(_cells(name, engines[name]))} |" for name in NAMES if name in engines]
    lines += ["", *(f"- {remark}" for remark in _remarks(rows, engines))]
    return "\n".join(lines) + "\n"


def _cells(name: str, engine: dict[str, Any]) -> list[str]:
    point, further = (point_for(engine, recall) for recall in WANTED)
    point = point or engine["curve"][-1]
    parts = f", {engine['parts']} parts" if engine.get("parts", 1) > 1 else ""
    return [
        NAMES[name],
        f"{engine['index']}{parts}",
        f"{point['recall_at_10']:.3f}",
        _time(point),
        f"{point['p99_ms']:.2f} ms",
        _time(further) if further else "not reached",
        *(f"{engine[kind]:,.0f} MiB" for kind in ("own_mib", "mapped_mib", "peak_mib")),
        f"{engine['file_bytes'] / 1e6:,.0f} MB",
        f"{engine['open_s'] * 1e3:,.0f} ms",
    ]


def _time(point: dict[str, Any]) -> str:
    low, high = point["p50_range_ms"]
    return f"{point['p50_ms']:.2f} ms ({low:.2f} to {high:.2f})"


def _remarks(rows: int, engines: dict[str, Any]) -> list[str]:
    """Return the remarks under a table: building, predictions, ratios to flat, other runs."""
    builds = [f"{NAMES[name]} {_built(engine['build'])}" for name, engine in engines.items()]
    remarks = [f"Building: {'; '.join(builds)}."]
    times = [
        f"{NAMES[name]} {time:.2f} ms"
        for name in engines
        if (time := time_for(engines[name], WANTED[0]))
    ]
    if len(times) > 1:
        remarks.append(
            f"For a recall of exactly {WANTED[0]:.2f}, on the lines of the plot: "
            f"{', '.join(times)}."
        )
    if ours := engines.get("ours"):
        remarks += _remarks_on_ours(ours, engines)
    if missing := [
        name for name in ("flat", "faiss-hnsw", "hnswlib", "usearch") if name not in engines
    ]:
        from benchmarks.search_engines import ENGINES

        predicted_gb = (
            f"{NAMES[name]} {ENGINES[name].predicted_bytes(rows, 384) / 1e9:,.1f} GB"
            for name in missing
        )
        remarks.append(
            "Not built at this size; by their formats their files would have: "
            f"{', '.join(predicted_gb)}."
        )
    if ours and (theirs := engines.get("autofaiss")):
        remarks.append(_remark_on_autofaiss(ours, theirs))
    return remarks


def _remarks_on_ours(ours: dict[str, Any], engines: dict[str, Any]) -> list[str]:
    file_mb, predicted_mb = (ours[kind] / 1e6 for kind in ("file_bytes", "predicted_bytes"))
    remarks = [f"Our index was predicted to have {predicted_mb:,.1f} MB and has {file_mb:,.1f} MB."]
    point = point_for(ours, WANTED[0]) or ours["curve"][-1]
    flat = engines.get("flat")
    if flat:
        share = flat["curve"][0]["p50_ms"] / point["p50_ms"]
        own, peak = (ours[kind] / flat[kind] for kind in ("own_mib", "peak_mib"))
        remarks.append(
            f"Ours takes 1/{share:.0f} of flat's time for a recall of "
            f"{point['recall_at_10']:.3f}; of its memory {own:.3f} for itself, and {peak:.2f} "
            "with every page of files that it touched."
        )
    remarks += [
        f"With all cores a question of ours takes {_time(other)}, p99 {other['p99_ms']:.2f} ms."
        for other in ours.get("all_cores", [])
        if other["effort"] == point["effort"]
    ]
    if drawn := point_for({"curve": ours.get("drawn", [])}, WANTED[0]):
        remark = (
            "Questions that are drawn like the rows are easier: recall "
            f"{drawn['recall_at_10']:.3f} in {_time(drawn)}"
        )
        if flat:
            share = flat["curve"][0]["p50_ms"] / drawn["p50_ms"]
            remark += f", 1/{share:.0f} of flat's time"
        remarks.append(f"{remark}.")
    if cold := ours.get("cold"):
        remarks.append(
            f"With the stored vectors on disk alone, the first {cold['questions']} questions "
            f"after opening took {cold['p50_ms']:.0f} ms (median) and {cold['p90_ms']:.0f} ms "
            "(nine of ten)."
        )
    commits = {name: engine["machine"]["commit"] for name, engine in engines.items()}
    if earlier := [
        f"{NAMES[name]} ({commit})"
        for name, commit in commits.items()
        if commit != ours["machine"]["commit"]
    ]:
        remarks.append(
            "Measured earlier on such a machine, with another sample of prompts, at the "
            f"commit in brackets: {', '.join(earlier)}."
        )
    return remarks


def _remark_on_autofaiss(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    (point,) = theirs["curve"]
    remark = (
        "autofaiss takes the graph, for which there is room, and as much effort as 10 ms a "
        f"question allow ({point['effort']}): recall {point['recall_at_10']:.4f} in "
        f"{_time(point)}. "
    )
    if as_good := point_for(ours, point["recall_at_10"]):
        return remark + f"Ours finds {as_good['recall_at_10']:.4f} in {_time(as_good)}."
    return remark + "Ours finds so many by a full scan."


def _built(build: dict[str, Any]) -> str:
    memory = f", {build['peak_mib']:,} MiB of its own" if "peak_mib" in build else ""
    return f"{build['wall_s']:,.0f} s ({build['cpu_s']:,.0f} s of processor{memory})"


def draw(sizes: dict[int, Any], path: Path) -> None:
    """Plot recall over time, one panel a size, one line an engine, its memory in the legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(6.2 * len(sizes), 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (rows, size) in enumerate(sizes.items(), 1):
        axes = figure.add_subplot(1, len(sizes), number)
        for place, name in enumerate(NAMES):
            if name not in size["engines"]:
                continue
            engine = size["engines"][name]
            times = [point["p50_ms"] for point in engine["curve"]]
            recalls = [point["recall_at_10"] for point in engine["curve"]]
            memory = f"own {engine['own_mib']:,.0f}, peak {engine['peak_mib']:,.0f} MiB"
            label = f"{NAMES[name].replace('`', '')}: {memory}"
            axes.plot(
                times,
                recalls,
                marker="os^Dv<>"[place],
                color=f"C{place}",
                label=label,
                lw=3 if name == "ours" else 1.5,
            )
        if drawn := size["engines"].get("ours", {}).get("drawn"):
            times, recalls = ([point[key] for point in drawn] for key in ("p50_ms", "recall_at_10"))
            axes.plot(
                times,
                recalls,
                "o--",
                color="C0",
                lw=1.5,
                label="ours, questions drawn like the rows",
            )
        axes.axhline(WANTED[0], color="0.7", ls="--", lw=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(0.05, 200)
        axes.set_ylim(0.6, 1.005)
        axes.set_title(f"{rows:,} vectors of 384 dimensions")
        axes.set_xlabel("one question on one core, milliseconds (median); further left is faster")
        axes.set_ylabel("recall@10; higher is better")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
