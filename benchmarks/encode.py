"""Encode prompts and 4-megapixel JPEGs: imprompt, open_clip's README, and clip-retrieval.

    python benchmarks/encode.py --prompts PROMPTS.parquet --peer PEER/bin/python

All use one ViT-B-32 with random weights, which cost the same as trained ones. 2,000 real prompts
are dealt into five hands; 64 JPEGs are drawn from soft colours and grain. Every program is a
process with its model loaded. Each peer first tries several batch sizes on one hand; then each hand
goes through all programs in turn, each with its best batch size, from files on disk to vectors in
memory.

    python3.11 -m venv PEER && PEER/bin/pip install clip-retrieval==2.45.0 'numpy<2' 'setuptools<81'

Writes figures, no prompts, to benchmarks/results/encode.json, and a plot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from benchmarks.encode_programs import ARCHITECTURE
from benchmarks.machine import ROOT, machine

RESULT = ROOT / "benchmarks" / "results" / "encode.json"
SIZE_PX = (2464, 1632)
SIZES = {"texts": (16, 64, 256), "images": (8, 16, 32)}
HANDS = 5
WARM, WARM_ITEMS = "warm", 8
"""The folder of the first run, which is not timed: a network is loaded at its first use."""
TRIAL = "trial"
"""The folder for trying batch sizes."""
FLOORS = {"texts": ("open_clip", 1.8), "images": ("clip-retrieval", 1.0)}
COLOURS = {
    "ours": "#0b6e4f",
    "open_clip": "#8d99ae",
    "open_clip, 256": "#c3cad6",
    "clip-retrieval": "#b5651d",
}


class Program:
    """A running program of `encode_programs.PROGRAMS`."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process
        self._answer()

    def ask(self, kind: str, folder: Path, batch: int) -> dict[str, Any]:
        """Return seconds, rows, the first vectors and peak memory of one run."""
        if self._process.stdin is None:
            raise RuntimeError("no pipe")
        print(
            json.dumps({"what": kind, "folder": str(folder), "batch": batch}),
            file=self._process.stdin,
            flush=True,
        )
        answer: dict[str, Any] = json.loads(self._answer())
        return answer

    def _answer(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            sys.exit(f"{self.name} ended with {self._process.wait()}")
        return line


@contextmanager
def running(name: str, python: Path, weights: Path) -> Iterator[Program]:
    """Yield a program with its model loaded."""
    words: list[str | Path] = [
        python,
        Path(__file__).with_name("encode_programs.py"),
        name,
        weights,
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Program(name, process)
        finally:
            process.kill()


def prepare(prompts: Path, folder: Path, *, n_prompts: int, n_images: int, n_trial: int) -> None:
    """Write weights, hands of prompts (a file each, for clip-retrieval), and JPEGs."""
    import open_clip
    import pyarrow.parquet as pq
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(ARCHITECTURE).state_dict(), folder / f"{ARCHITECTURE}.pt")
    rng = np.random.default_rng(0)
    column = pq.read_table(prompts, columns=["prompt"])["prompt"]
    for number, row in enumerate(rng.choice(len(column), n_prompts, replace=False).tolist()):
        path = folder / "texts" / str(number % HANDS) / f"{number:05d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(column[row].as_py(), "utf-8")
    (folder / "images" / "0").mkdir(parents=True)
    for number in range(n_images):
        soft = Image.fromarray(rng.integers(0, 256, (24, 36, 3), dtype=np.uint8)).resize(
            SIZE_PX, Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 8, (SIZE_PX[1], SIZE_PX[0], 1)).astype(np.float32)
        picture = Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8))
        picture.save(folder / "images" / "0" / f"{number:03d}.jpg", quality=90)
    for kind in SIZES:
        for name, n_items in ((WARM, WARM_ITEMS), (TRIAL, n_trial)):
            (folder / kind / name).mkdir()
            for path in sorted((folder / kind / "0").iterdir())[:n_items]:
                shutil.copy(path, folder / kind / name)


def hand(folder: Path, kind: str, number: int) -> Path:
    """Return the folder of a hand; the images are the same in each."""
    return folder / kind / str(number if kind == "texts" else 0)


def best_sizes(
    programs: list[Program], folder: Path, kind: str
) -> tuple[dict[str, int], dict[str, dict[int, float]]]:
    """Return the fastest batch size of each peer, and the items a second of all sizes tried."""
    best, tried = {"ours": 0}, {}
    for program in programs:
        program.ask(kind, folder / kind / WARM, WARM_ITEMS)
        if program.name != "ours":
            answers = {size: program.ask(kind, folder / kind / TRIAL, size) for size in SIZES[kind]}
            tried[program.name] = {
                size: round(answer["rows"] / answer["seconds"], 2)
                for size, answer in answers.items()
            }
            best[program.name] = max(tried[program.name], key=tried[program.name].__getitem__)
    return best, tried


def compare(programs: list[Program], folder: Path, kind: str) -> dict[str, Any]:
    """Run every hand through all programs in turn."""
    best, tried = best_sizes(programs, folder, kind)
    rates: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    loads: list[float] = []
    vectors: dict[str, Any] = {}
    peaks: dict[str, float] = {}
    for number in range(HANDS):
        order = programs if number % 2 == 0 else programs[::-1]
        for program in order:
            sizes = {program.name: best[program.name]}
            if kind == "texts" and program.name == "open_clip":
                sizes["open_clip, 256"] = 256
            for label, size in sizes.items():
                answer = program.ask(kind, hand(folder, kind, number), size)
                rates.setdefault(label, []).append(answer["rows"] / answer["seconds"])
                used.setdefault(label, []).append(1e3 * answer["processor_s"] / answer["rows"])
                peaks[program.name] = answer["peak_mib"]
                if number == 0:
                    vectors[label] = np.array(answer["first"])
        loads.append(os.getloadavg()[0])
    ratios = {
        label: [ours / theirs for ours, theirs in zip(rates["ours"], rates[label], strict=True)]
        for label in rates
        if label != "ours"
    }
    peer, floor = FLOORS[kind]
    return {
        "n": len(list(hand(folder, kind, 0).iterdir())) * (HANDS if kind == "texts" else 1),
        "batch_tried_per_s": tried,
        "batch": best,
        "per_s": {label: spread(values) for label, values in rates.items()},
        "processor_ms_each": {label: spread(values) for label, values in used.items()},
        "ours_by": {label: spread(values) for label, values in ratios.items()},
        "floor": {"peer": peer, "by": floor, "holds": statistics.median(ratios[peer]) >= floor},
        "least_cosine_with_ours": {
            label: float((rows * vectors["ours"]).sum(1).min())
            for label, rows in vectors.items()
            if label != "ours"
        },
        "peak_mib": peaks,
        "load_average": [round(load, 1) for load in loads],
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Return minimum, median, maximum and all values in order."""
    rounded = [round(value, 3) for value in values]
    return {
        "min": min(rounded),
        "median": statistics.median(rounded),
        "max": max(rounded),
        "all": rounded,
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot bars of the medians, with whiskers from minimum to maximum."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    titles = {"texts": "Prompts a second", "images": "JPEGs of 4 megapixels a second"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        rates = result[kind]["per_s"]
        for place, (label, rate) in enumerate(rates.items()):
            below, above = rate["median"] - rate["min"], rate["max"] - rate["median"]
            axis.bar(
                place,
                rate["median"],
                yerr=[[below], [above]],
                capsize=5,
                color=COLOURS[label],
                width=0.65,
            )
            axis.annotate(
                f"{rate['median']:.1f}",
                (place + 0.06, rate["median"]),
                ha="left",
                va="bottom",
                fontsize=9,
            )
        axis.set_xticks(
            range(len(rates)), [label.replace(", ", ",\nbatch ") for label in rates], fontsize=9
        )
        axis.set_title(title, fontsize=11)
        axis.set_ylim(0, 1.15 * max(rate["max"] for rate in rates.values()))
        axis.spines[["top", "right"]].set_visible(False)
    host = result["machine"]
    figure.suptitle(
        f"{ARCHITECTURE}, {host['cpu']}, {host['cores']} cores: median and range of {HANDS} runs",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prepare, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True, help="a Python with clip-retrieval")
    parser.add_argument("--n-prompts", type=int, default=2000)
    parser.add_argument("--n-images", type=int, default=64)
    parser.add_argument(
        "--n-trial", type=int, default=256, help="items with which batch sizes are tried"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepare(
            args.prompts,
            folder,
            n_prompts=args.n_prompts,
            n_images=args.n_images,
            n_trial=args.n_trial,
        )
        weights = folder / f"{ARCHITECTURE}.pt"
        pythons = {
            "ours": Path(sys.executable),
            "open_clip": Path(sys.executable),
            "clip-retrieval": args.peer.absolute(),
        }
        programs = [
            stack.enter_context(running(program, python, weights))
            for program, python in pythons.items()
        ]
        result = {
            "machine": machine("torch", "open_clip_torch", "pillow", "numpy"),
            "threads": os.environ.get("OMP_NUM_THREADS", "as many as there are cores"),
            "command": "python benchmarks/encode.py",
            "given": {
                "n_prompts": args.n_prompts,
                "n_images": args.n_images,
                "n_trial": args.n_trial,
            },
            "texts": compare(programs, folder, "texts"),
            "images": compare(programs, folder, "images"),
            "seconds": round(time.perf_counter() - begin),
        }
    args.result.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    plot(result, args.result.with_suffix(".png"))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
