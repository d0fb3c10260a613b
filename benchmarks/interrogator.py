"""The classic interrogator in batches against the library, one picture at a time, same weights.

    python benchmarks/interrogator.py [--images 512]

Both sides use all 101,000 phrases and the same captions, and return whole prompts, which are
compared. The library's side is the notebook's loop over `image_to_features` and `LabelTable.rank`
(three lists, no artists, no sites), with tables encoded before; `interrogate_classic`, which also
ranks artists and sites, is measured on fewer pictures. Rounds of 64 pictures take turns.

Two models: the trained tiny CLIP of the tests, and a ViT-B/32 image tower of full size with random
weights (its text tower is small: phrases are encoded before the clock runs). Writes
benchmarks/results/interrogator.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from benchmarks.machine import ROOT, machine
from imprompt.core.hub.fetch import silent
from imprompt.core.values import Vectors
from imprompt.encoders.openclip import OpenClipEncoder, load_openclip
from imprompt.ensemble.interrogator.label_vectors import PhraseTable, phrase_table
from imprompt.ensemble.interrogator.library_modes import LibraryModes
from imprompt.ensemble.interrogator.member import fitting, prompt_parts
from imprompt.ensemble.interrogator.phrase_lists import package_lists
from tests.assets.scenes import held_out_scenes

RESULT = ROOT / "benchmarks" / "results" / "interrogator.json"
ROUND_IMAGES = 64
BATCH_IMAGES = 32
CLASSIC_IMAGES = 32
SIDE_PX = 512
VIT_B_32 = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@dataclass(frozen=True, slots=True)
class Side:
    """A way to prompts in two steps: pictures to features, features and captions to prompts."""

    look: Callable[[Sequence[Image.Image]], Any]
    choose: Callable[[Any, Sequence[str]], list[str]]


def write_vit_b_32(folder: Path) -> str:
    """Write the model of `VIT_B_32`, with random weights by seed 0."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": VIT_B_32, "preprocess_cfg": {}}), "utf-8"
    )
    torch.manual_seed(0)
    save_file(
        open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict(),
        folder / "open_clip_model.safetensors",
    )
    return str(folder)


def one_by_one(library: Any) -> Side:
    """Return the library's way: the notebook's loop."""
    from clip_interrogator.clip_interrogator import _truncate_to_fit

    def prompt(features: Any, caption: str) -> str:
        medium = library.mediums.rank(features, 1)[0]
        movement = library.movements.rank(features, 1)[0]
        flavors = ", ".join(library.flavors.rank(features, 3))
        said = [caption] if caption.startswith(medium) else [caption, medium]
        return str(_truncate_to_fit(", ".join([*said, movement, flavors]), library.tokenize))

    return Side(
        look=lambda images: [library.image_to_features(image) for image in images],
        choose=lambda features, captions: [
            prompt(row, caption) for row, caption in zip(features, captions, strict=True)
        ],
    )


def in_batches(encoder: OpenClipEncoder, tables: Sequence[PhraseTable]) -> Side:
    """Return our way, in the batches of a submission."""

    def batches(items: Sequence[Any]) -> list[Any]:
        return [items[start : start + BATCH_IMAGES] for start in range(0, len(items), BATCH_IMAGES)]

    def prompts(features: Vectors, captions: Sequence[str]) -> list[str]:
        chosen = [table.top(features, n) for table, n in zip(tables, (1, 1, 3), strict=True)]
        parts = [prompt_parts(*row) for row in zip(captions, *chosen, strict=True)]
        return fitting(parts, encoder.texts, max_tokens=encoder.spec.max_tokens)

    return Side(
        look=lambda images: np.concatenate(
            [encoder.images.encode(batch) for batch in batches(images)]
        ),
        choose=lambda features, captions: [
            text
            for rows, said in zip(batches(features), batches(captions), strict=True)
            for text in prompts(rows, said)
        ],
    )


def timed(ask: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Return the prompts and the seconds."""
    begin = time.perf_counter()
    said = ask(*arguments)
    return said, time.perf_counter() - begin


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "n": len(values),
    }


def compare(name: str, images: Sequence[Image.Image], captions: Sequence[str]) -> dict[str, Any]:
    """Run both ways over one model, in turn."""
    encoder = load_openclip(name, device="cpu")
    lists = package_lists()
    tables, encoding_s = timed(
        lambda: [
            phrase_table(labels, encoder, announce=silent)
            for labels in (lists.mediums, lists.movements, lists.flavors)
        ]
    )
    library = LibraryModes(encoder, lists, "fast", announce=silent).library
    sides = {"library": one_by_one(library), "ours": in_batches(encoder, tables)}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    said: dict[str, list[str]] = {name: [] for name in sides}
    for side in sides.values():  # warm
        side.choose(side.look(images[:BATCH_IMAGES]), captions[:BATCH_IMAGES])
    for start in range(0, len(images), ROUND_IMAGES):
        part = slice(start, start + ROUND_IMAGES)
        for name, side in sides.items():
            features, tower_s = timed(side.look, images[part])
            prompts, choice_s = timed(side.choose, features, captions[part])
            seconds[name].append((tower_s, choice_s))
            said[name] += prompts
    whole = {
        name: [tower_s + choice_s for tower_s, choice_s in times] for name, times in seconds.items()
    }
    few = images[:CLASSIC_IMAGES]
    _, classic = timed(lambda: [library.interrogate_classic(each, caption="x") for each in few])
    return {
        "dimensions": encoder.spec.dim,
        "phrases": sum(len(table.labels) for table in tables),
        "phrases_encoded_or_read_s": encoding_s,
        "images": len(images),
        "equal_prompts": sum(map(str.__eq__, *said.values())),
        "seconds": {name: sum(times) for name, times in whole.items()},
        "ratio": sum(whole["library"]) / sum(whole["ours"]),
        "ratio_by_round": spread(
            [slow / quick for slow, quick in zip(whole["library"], whole["ours"], strict=True)]
        ),
        "ms_an_image": {
            name: {
                "image_tower": spread([tower_s * 1000 / ROUND_IMAGES for tower_s, _ in times]),
                "choice": spread([choice_s * 1000 / ROUND_IMAGES for _, choice_s in times]),
            }
            for name, times in seconds.items()
        },
        "interrogate_classic_ms_an_image": classic * 1000 / CLASSIC_IMAGES,
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, default=512, help=f"how many, a multiple of {ROUND_IMAGES}"
    )
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip says that the weights are random
    warnings.simplefilter("ignore")  # the library calls functions of torch that are going away
    scenes = held_out_scenes(args.images, seed=0)
    images = [picture.resize((SIDE_PX, SIDE_PX)) for picture, _ in scenes]
    captions = [text for _, text in scenes]
    with tempfile.TemporaryDirectory() as folder:
        models = {
            "tiny-clip": str(ROOT / "tests" / "assets" / "tiny-clip"),
            "ViT-B/32, random weights": write_vit_b_32(Path(folder)),
        }
        result = {
            "machine": machine("torch", "open_clip_torch", "clip-interrogator", "numpy"),
            "command": f"python benchmarks/interrogator.py --images {args.images}",
            "picture_side_px": SIDE_PX,
            "models": {name: compare(source, images, captions) for name, source in models.items()},
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
