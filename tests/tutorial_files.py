"""What the four readers of the tutorials have on their disks, drawn and written here."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.images.graphs import graph, node

_SUBJECTS = (
    *(
        "a lighthouse on a cliff",
        "a red fox in the snow",
        "a bowl of ramen",
        "a castle in the mist",
    ),
    *("an old steam train", "a glass bottle on a table", "a knight in silver armour"),
    *("a market street in the rain", "a whale above the clouds", "a wooden cabin by a lake"),
)
_STYLES = (
    ("oil painting", "golden hour", "highly detailed"),
    ("watercolor", "soft light", "highly detailed"),
    ("pixel art", "neon lights", "sharp focus"),
    ("photograph", "dramatic lighting", "sharp focus"),
)
PROMPTS = tuple(", ".join((subject, *style)) for style in _STYLES for subject in _SUBJECTS)


def write_artist(home: Path) -> None:
    """ComfyUI's output: 18 images with their graphs, and two pictures from elsewhere."""
    output = home / "ComfyUI" / "output"
    output.mkdir(parents=True)
    for number, prompt in enumerate(PROMPTS[:18], 1):
        info = PngInfo()
        nodes = graph(
            yes=node("CLIPTextEncode", text=prompt, clip=["lora", 1]),
            no=node("CLIPTextEncode", text="blurry, text, watermark", clip=["lora", 1]),
        )
        info.add_text("prompt", json.dumps(nodes))
        _picture(number).save(output / f"ComfyUI_{number:05}_.png", pnginfo=info)
    _picture(100).save(output / "scan.png")
    _picture(101).save(output / "photo.jpg", quality=90)


def write_competitor(home: Path) -> None:
    """The competition's folder, as its page describes it: images and a sample submission."""
    images = home / "stable-diffusion-image-to-prompts" / "images"
    images.mkdir(parents=True)
    names = [f"{number:09x}" for number in (0x20057F34D, 0x227EF0887, 0x92E911621)]
    for number, name in enumerate(names):
        _picture(200 + number).save(images / f"{name}.png")
    with (images.parent / "sample_submission.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("imgId_eId", "val"))
        rows.writerows((f"{name}_{place}", 0) for name in names for place in range(384))


def write_researcher(home: Path) -> None:
    """A table of prompts with counts, and pairs of images and prompts."""
    with (home / "prompts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("prompt", "n_submitted"))
        rows.writerows((prompt, 1 + number % 5) for number, prompt in enumerate(PROMPTS))
        rows.writerow((f"{PROMPTS[0]}, 8k", 1))
        rows.writerow(("mail me at somebody@example.org", 1))
    (home / "pairs").mkdir()
    names = [f"{number}.png" for number in range(20)]
    for number, name in enumerate(names):
        _picture(300 + number).save(home / "pairs" / name)
    table = pa.table({"image": names, "prompt": PROMPTS[::2][:20]})
    pq.write_table(table, home / "pairs" / "pairs.parquet")


def _picture(seed: int) -> Image.Image:
    """Return blurred noise: a picture of nothing, different for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC)
