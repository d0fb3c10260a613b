"""One `imprompt query` of an image from the shell, against importing torch, and its parts.

    python benchmarks/cold.py --index INDEX [--image IMAGE] [--runs 9]

Three processes take turns: `imprompt query IMAGE --json` (as `python cli.py …`), `python -c "import
torch"`, and a child of this script. The child does the work of the command between parsing and
printing, in the same order, and notes the time after each part:

    import  from the start of the process until all libraries are imported
    index   opening the version
    model   reading the weights of the image tower
    image   decoding the picture and encoding it
    search  nearest rows, collapsing, texts
    compose the prompts around the picture, MiniLM's weights, the prompt
    exit    until the process has ended; like the command, it skips the teardown of libraries

The parts are of the child, the ratio is of the command. Without --image a picture is drawn. Writes
benchmarks/results/cold.json, the page and the plot.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RESULT = ROOT / "benchmarks" / "results" / "cold.json"
STAMPED = ("import", "index", "model", "image", "search", "compose")
PARTS = (*STAMPED, "exit")
MOST_COMPOSE_S = 0.5
SAID = {
    "import": "interpreter, ONNX Runtime, faiss, duckdb, ours",
    "index": "opening the version",
    "model": "the image tower read, its graphs prepared",
    "image": "decoded, and its vector",
    "search": "nearest rows, collapsing, texts",
    "compose": "MiniLM read, the prompt composed",
    "exit": "until the process is gone",
}
_PAGE = """# One query from the shell

From `cold.json`, by `benchmarks/cold.py`, which writes this page and the plot: one drawn JPEG that
carries no prompt, asked of an index of {rows:,} prompts with `lite`. {cpu}, {cores} cores,
{memory_gib} GiB, Python {python}, ONNX Runtime {onnxruntime}, torch {torch}, commit {commit}; {n}
turns of the three processes after one that is not counted, at a load of {load} with these.

| | median | least to most |
| --- | ---: | --- |
{commands}

Composing may take {limit} s, and takes no more in {held} turns of {n}. Where the time of a query
goes, by a child that does what the command does between parsing and printing, ends as it does and
notes the time after each part; what the command takes beside these parts is its own imports for
parsing and printing:

| part | median | least to most | share |
| --- | ---: | --- | ---: |
{parts}

![the parts, and the two commands](cold.png)
"""
COLOURS = dict(
    zip(
        PARTS,
        ("#8d99ae", "#e0a458", "#0b6e4f", "#3fa796", "#b5651d", "#7b6d8d", "#5c6370"),
        strict=True,
    )
)


def child(index: Path, image: Path) -> None:
    """Do the work of `query` and print a time stamp, in ns of the epoch, after each part."""
    stamps = [int(os.environ["BEGUN_NS"])]

    def stamp() -> None:
        stamps.append(time.time_ns())

    import duckdb  # noqa: F401 -- imported for its time, as what follows are
    import faiss  # noqa: F401

    from imprompt.encoders.onnx_runtime import import_onnxruntime
    from imprompt.encoders.registry import load_encoder
    from imprompt.ensemble.blend_config import DEFAULT, load_blend_config
    from imprompt.ensemble.estimates import answer_batch
    from imprompt.ensemble.members import load_ensemble
    from imprompt.retriever import Question, Retriever
    from imprompt.retriever.search import read_batches
    from imprompt.store.index_version import open_version

    import_onnxruntime()
    stamp()
    with open_version(index) as version:
        stamp()
        encoder = load_encoder(version.manifest.encoders[0].name)
        tower = encoder.images
        stamp()
        ensemble = load_ensemble(load_blend_config(DEFAULT), version, encoder)
        retriever = Retriever(version, ensemble.neighbourhood.encoder)
        encode, seen = tower.encode, []
        search, searched = retriever.answer, []

        def noted(items: Any) -> Any:
            rows = encode(items)
            seen.append(time.time_ns())
            return rows

        def noted_search(*args: Any, **options: Any) -> Any:
            answers = search(*args, **options)
            searched.append(time.time_ns())
            return answers

        setattr(tower, "encode", noted)  # noqa: B010 -- the only seam between encoding and searching
        setattr(retriever, "answer", noted_search)  # noqa: B010 -- and between this and composing
        (batch,) = read_batches([Question(image)])
        begun = time.perf_counter()
        (answer,) = answer_batch(batch, 10, retriever=retriever, ensemble=ensemble, begun=begun)
        stamps += [seen[0], searched[0]]
        stamp()
    if not getattr(answer, "prompt", ""):
        sys.exit(str(answer))
    seconds = [(after - before) / 1e9 for before, after in pairwise(stamps)]
    print(json.dumps(dict(zip(STAMPED, seconds, strict=True))), flush=True)
    os._exit(0)


def timed(*words: str) -> tuple[float, float, str]:
    """Return the seconds of a process, its CPU seconds, and its output."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"BEGUN_NS": str(time.time_ns())}
    process = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        seconds,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        process.stdout,
    )


def measure(index: Path, image: Path, runs: int) -> dict[str, Any]:
    """Run the three processes in turn; the first turn warms the page cache and does not count."""
    from benchmarks.encode import spread

    query: list[float] = []
    torch: list[float] = []
    parts: dict[str, list[float]] = {part: [] for part in PARTS}
    used: list[tuple[float, float]] = []
    loads: list[float] = []
    for number in range(runs + 1):
        whole, whole_used, _ = timed("cli.py", "query", str(image), "--index", str(index), "--json")
        alone, alone_used, _ = timed("-c", "import torch")
        lived, _, output = timed(__file__, "--child", "--index", str(index), "--image", str(image))
        if number:
            query.append(whole)
            torch.append(alone)
            used.append((whole_used, alone_used))
            loads.append(round(os.getloadavg()[0], 1))
            stamped = json.loads(output)
            for part, seconds in {**stamped, "exit": lived - sum(stamped.values())}.items():
                parts[part].append(seconds)
    ratios = [whole / alone for whole, alone in zip(query, torch, strict=True)]
    return {
        "n": runs,
        "query_s": spread(query),
        "import_torch_s": spread(torch),
        "ratio": spread(ratios),
        "query_processor_s": spread([whole for whole, _ in used]),
        "import_torch_processor_s": spread([alone for _, alone in used]),
        "processor_ratio": spread([whole / alone for whole, alone in used]),
        "compose_at_most_s": MOST_COMPOSE_S,
        "parts_s": {part: spread(seconds) for part, seconds in parts.items()},
        "load_average": loads,
    }


def drawn(folder: Path) -> Path:
    """Draw a JPEG of 640 x 427 pixels without a prompt."""
    import numpy as np
    from PIL import Image

    soft = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    soft.resize((640, 427), Image.Resampling.BICUBIC).save(folder / "drawn.jpg", quality=90)
    return folder / "drawn.jpg"


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot the parts of the median query, above the bars and ranges of the command and of torch."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 2.9), constrained_layout=True)
    left = 0.0
    for part in PARTS:
        seconds = result["parts_s"][part]["median"]
        axis.barh(2, seconds, left=left, color=COLOURS[part], label=f"{part} {seconds:.2f} s")
        left += seconds
    for place, (name, colour) in enumerate(
        {"import_torch_s": "#c3cad6", "query_s": "#0b6e4f"}.items()
    ):
        rate = result[name]
        around = [[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]]
        axis.barh(place, rate["median"], xerr=around, capsize=4, color=colour)
        axis.annotate(
            f"{rate['median']:.2f} s",
            (rate["max"], place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_yticks(range(3), ["import torch", "query, the command", "query, its parts"])
    axis.set_xlim(0, 1.15 * max(result["query_s"]["max"], left))
    axis.set_xlabel("seconds")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        ncols=len(PARTS), fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.45, 1.2)
    )
    figure.savefig(path, dpi=110)


def page(result: dict[str, Any]) -> str:
    """Return the page: two tables."""
    commands = [
        ("`query IMAGE`, by `import torch` of the same turn", "ratio", "**{:.2f}**"),
        ("the same in processor time", "processor_ratio", "{:.2f}"),
        ("`query IMAGE`, clock", "query_s", "{:.2f} s"),
        ("`query IMAGE`, processor", "query_processor_s", "{:.2f} s"),
        ('`python -c "import torch"`, clock', "import_torch_s", "{:.2f} s"),
        ('`python -c "import torch"`, processor', "import_torch_processor_s", "{:.2f} s"),
    ]
    parts = result["parts_s"]
    whole = sum(part["median"] for part in parts.values())

    def cells(rate: dict[str, Any], median: str) -> str:
        return f"{median.format(rate['median'])} | {rate['min']:.2f} to {rate['max']:.2f}"

    return _PAGE.format(
        **result["machine"],
        rows=result["rows"],
        n=result["n"],
        load=f"{min(result['load_average'])} to {max(result['load_average'])}",
        limit=MOST_COMPOSE_S,
        held=sum(seconds <= MOST_COMPOSE_S for seconds in parts["compose"]["all"]),
        commands="\n".join(
            f"| {what} | {cells(result[name], median)} |" for what, name, median in commands
        ),
        parts="\n".join(
            f"| {name}: {SAID[name]} | {cells(part, '{:.2f} s')} | "
            f"{100 * part['median'] / whole:.0f} % |"
            for name, part in parts.items()
        ),
    )


def rows_of(index: Path) -> int:
    """Return the number of prompts of an index."""
    from imprompt.store.index_version import open_version

    with open_version(index) as version:
        return version.manifest.rows


def main() -> None:
    """Measure and write, or run as the child."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.index, args.image)
        return
    from benchmarks.machine import machine

    with tempfile.TemporaryDirectory() as folder:
        image = args.image or drawn(Path(folder))
        result = {
            "machine": machine("onnxruntime", "torch", "faiss-cpu", "duckdb", "pillow"),
            "threads": os.environ.get("OMP_NUM_THREADS", "as many as there are cores"),
            "command": "python benchmarks/cold.py --index INDEX",
            "rows": rows_of(args.index.absolute()),
            **measure(args.index.absolute(), image.absolute(), args.runs),
        }
    args.result.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    args.result.with_suffix(".md").write_text(page(result), "utf-8")
    plot(result, args.result.with_suffix(".png"))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
