"""Encoding and search on the GPU against the CPU, in one run on one machine, answers compared.

    python benchmarks/gpu.py --index INDEX_FOLDER --images FOLDER [--texts 2000] [--queries 500]
                             [--repeats 5]

The index's encoder encodes prompts of the index and the images on both devices, in turn; rows of
the index are the queries of the search. The GPU's neighbours must be those that the CPU finds with
effort 1. Needs torch with CUDA, faiss-gpu and a GPU: without one of them it says so and measures
nothing. Writes benchmarks/results/gpu.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine
from imprompt.core.device_names import nvidia_driver
from imprompt.core.errors import ImpromptError
from imprompt.core.protocols import VectorIndex
from imprompt.core.values import Vectors
from imprompt.encoders.registry import load_encoder
from imprompt.encoders.torch_devices import choose_device
from imprompt.images.decode import open_image
from imprompt.images.image_files import require_images
from imprompt.store.gpu import Gpu, opened_gpu
from imprompt.store.gpu_index import GpuIndex
from imprompt.store.index_version import IndexVersion, open_version

RESULT = Path(__file__).resolve().parent / "results" / "gpu.json"
K = 10
_WARM = 32

Work = Callable[[], NDArray[Any]]


def in_turn(
    works: dict[str, Work], *, items: int, repeats: int, before: dict[str, Work] | None = None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return items a second of each work (median and range, interleaved) and its last output.

    `before` runs before each, untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    made: dict[str, NDArray[Any]] = {}
    for _ in range(repeats):
        for name, work in works.items():
            if before is not None:
                before[name]()
            began = time.perf_counter()
            made[name] = work()
            seconds[name].append(time.perf_counter() - began)
    rates = {
        name: {
            "items_per_s": round(items / float(np.median(taken)), 2),
            "range": [round(items / max(taken), 2), round(items / min(taken), 2)],
        }
        for name, taken in seconds.items()
    }
    return {"n": items, "repeats": repeats, **rates}, made


def encoding(towers: dict[str, Any], items: Sequence[Any], *, repeats: int) -> dict[str, Any]:
    """Run both towers on the same items, and compare their rows."""
    for tower in towers.values():
        tower.encode(items[:_WARM])
    works: dict[str, Work] = {name: partial(tower.encode, items) for name, tower in towers.items()}
    # The towers of `lite` remember what they were asked last, and would answer it at once.
    others: dict[str, Work] = {
        name: partial(tower.encode, items[:1]) for name, tower in towers.items()
    }
    result, rows = in_turn(works, items=len(items), repeats=repeats, before=others)
    cpu, gpu = rows.values()
    return {
        **result,
        "largest_difference": float(np.abs(cpu - gpu).max()),
        "least_cosine": float((cpu * gpu).sum(axis=1).min()),
    }


def searching(
    indexes: dict[str, tuple[VectorIndex, float | None]], queries: Vectors, *, repeats: int
) -> dict[str, Any]:
    """Search each index with its effort, by single queries and by batches of 64.

    "same_ids" compares the exact indexes.
    """
    result: dict[str, Any] = {}
    for size in (1, 64):

        def ask(index: VectorIndex, effort: float | None, size: int = size) -> NDArray[Any]:
            parts = [
                index.search(queries[at : at + size], K, effort=effort).ids
                for at in range(0, len(queries), size)
            ]
            return np.concatenate(parts)

        for index, effort in indexes.values():
            index.search(queries[:1], K, effort=effort)  # the GPU gets the vectors here
        works: dict[str, Work] = {
            name: partial(ask, index, effort) for name, (index, effort) in indexes.items()
        }
        rates, ids = in_turn(works, items=len(queries), repeats=repeats)
        same = bool((ids["gpu"] == ids["cpu, effort 1"]).all())
        result[f"batches of {size}"] = {**rates, "same_ids": same}
    return result


def measure(version: IndexVersion, gpu: Gpu, args: argparse.Namespace) -> dict[str, Any]:
    """Measure all parts over one version."""
    name, space = version.manifest.encoders[0].name, version.space
    rows = np.random.default_rng(0).permutation(version.manifest.rows).astype(np.int64)
    texts = [prompt.embedded_text for prompt in version.prompts.get_many(rows[: args.texts])]
    pictures = [open_image(path) for path in require_images([args.images])]
    encoders = {
        "cpu": load_encoder(name, device="cpu"),
        "gpu": load_encoder(name, device=args.device),
    }
    vectors = version.vectors(space)
    cpu = version.index(space)
    moved = GpuIndex(cpu, vectors, gpu)
    began = time.perf_counter()
    moved.search(vectors.rows(rows[:1]), 1)
    filled_s = time.perf_counter() - began
    indexes: dict[str, tuple[VectorIndex, float | None]] = {
        "cpu": (cpu, None),
        "cpu, effort 1": (cpu, 1.0),
        "gpu": (moved, None),
    }
    figures = {
        "rows": len(vectors),
        "dim": vectors.dim,
        "encoder": name,
        "texts": encoding(
            {device: encoder.texts for device, encoder in encoders.items()},
            texts,
            repeats=args.repeats,
        ),
        "images": encoding(
            {device: encoder.images for device, encoder in encoders.items()},
            pictures,
            repeats=args.repeats,
        ),
        "filling_s": round(filled_s, 2),
        "search": searching(indexes, vectors.rows(rows[: args.queries]), repeats=args.repeats),
    }
    moved.close()
    return figures


def main() -> None:
    """Measure and write, or say in one line why not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    args.device = "cuda"
    try:
        choose_device(args.device)
        with opened_gpu(args.device) as gpu, open_version(args.index.absolute()) as version:
            if gpu is None:
                sys.exit("There is no GPU.")
            figures = measure(version, gpu, args)
    except ImpromptError as error:
        sys.exit(f"Nothing was measured: {error}")
    about = {**machine("torch", "faiss-gpu"), "gpu": nvidia_driver().gpu}
    args.out.write_text(json.dumps({"machine": about, **figures}, indent=1) + "\n", "utf-8")
    print(json.dumps(figures, indent=1))
    if not all(part["same_ids"] for part in figures["search"].values()):
        sys.exit("The GPU's neighbours are not those of the processor.")


if __name__ == "__main__":
    main()
