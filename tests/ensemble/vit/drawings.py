"""Pairs that a small tower can learn: a prompt for each shape and colour of `tests.assets`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.assets.scenes import COLOURS, SHAPES, Scene, Thing, draw

NOUNS = dict(
    zip(
        SHAPES,
        ("a steam locomotive", "a bowl of ramen", "an astronaut", "a ruined castle", "an octopus"),
        strict=True,
    )
)
PLACES = dict(
    zip(
        COLOURS,
        (
            "in a burning desert at sunset, oil painting",
            "inside a library, pencil sketch",
            "on a wheat field, impressionism",
            "in a jungle with parrots, digital art",
            "under the sea, macro photograph",
            "in outer space, synthwave poster",
        ),
        strict=True,
    )
)
"""To MiniLM the scenes' own texts are all alike; these make 25 groups of prompts."""


def drawings(each: int, *, seed: int, side_px: int = 64) -> list[tuple[Image.Image, str]]:
    """Draw every shape in every colour `each` times; the prompt is its noun and its place."""
    rng = np.random.default_rng(seed)
    found = []
    for shape, noun in NOUNS.items():
        for colour, place in PLACES.items():
            scene = Scene((Thing("large", colour, shape),), "in the centre", "white")
            found += [(draw(scene, rng, side_px=side_px), f"{noun} {place}") for _ in range(each)]
    return found


def drawn_pairs(folder: Path, *, each: int, seed: int = 0) -> Path:
    """A pairs file of `drawings`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (picture, prompt) in enumerate(drawings(each, seed=seed)):
        picture.save(folder / f"{number:04}.png")
        rows.append({"image": f"{number:04}.png", "prompt": prompt})
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"
