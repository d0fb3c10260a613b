"""Train the tiny CLIP model of the test suite on drawn scenes and write it as an open_clip folder.

    python -m tests.assets.train_tiny_clip --out tests/assets/tiny-clip

Model class, tokenizer and loss are open_clip's own. Every step draws new scenes, each with near
misses beside it in the batch: only a model that binds colour, size and place to the shape tells
them apart.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save

from imprompt.core.atomic_files import atomic_write
from imprompt.core.metrics import recall_at_k
from tests.assets.scenes import Scene, draw, held_out_scenes, training_batch

IMAGE_PX = 48
# Drawn larger than the model sees, so that edges are smooth; even larger gains nothing.
TRAINING_SIDE_PX = 96
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 64,
        "init_logit_scale": 3.0,
        "vision_cfg": {
            "image_size": IMAGE_PX,
            "patch_size": 8,
            "width": 80,
            "head_width": 16,
            "layers": 2,
        },
        # CLIP's whole vocabulary: 24 wide, in float16, its table alone is 2.4 MB of the 3 MB that
        # the folder may have.
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": 24,
            "heads": 3,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "size": IMAGE_PX,
        "mean": [PIXEL_MEAN] * 3,
        "std": [PIXEL_STD] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def main() -> None:
    """Train, write, examine what was written; the figures go to standard output."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    began = time.monotonic()
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    rng = np.random.default_rng([options.seed, 0])
    train(model, steps=options.steps, batch=options.batch, peak_rate=options.rate, rng=rng)
    figures = {**vars(options), "out": str(options.out), "train_s": round(time.monotonic() - began)}
    write(model, options.out)
    figures["recall_at_1"] = [
        examine(options.out, n=options.examined, seed=seed) for seed in range(4)
    ]
    sys.stdout.write(json.dumps(figures) + "\n")


def train(
    model: Any, *, steps: int, batch: int, peak_rate: float, rng: np.random.Generator
) -> None:
    """Train contrastively: AdamW, a warm-up, a cosine decay to zero.

    See Radford et al. 2021, section 2.3.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=peak_rate, betas=(0.9, 0.98))
    warmup = steps / 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    tokenize = open_clip.SimpleTokenizer(
        context_length=CONFIG["model_cfg"]["text_cfg"]["context_length"]
    )
    loss_of = open_clip.ClipLoss()
    model.train()
    for step in range(1, steps + 1):
        scenes = training_batch(batch, rng)
        loss = loss_of(*model(pixels(scenes, rng), tokenize([scene.text for scene in scenes])))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(
                0, math.log(100)
            )  # as CLIP does, against a runaway temperature
        if step % 100 == 0:
            sys.stderr.write(f"step {step} of {steps}: loss {loss.item():.3f}\n")


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Matrices with weight decay; gains, biases and embeddings without."""
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": 0.02},
        {"params": [], "weight_decay": 0.0},
    ]
    for name, parameter in model.named_parameters():
        groups[parameter.ndim < 2 or "embedding" in name]["params"].append(parameter)
    return groups


def pixels(scenes: Sequence[Scene], rng: np.random.Generator) -> torch.Tensor:
    """Return the scenes as (n, 3, IMAGE_PX, IMAGE_PX) float32, normalized by `preprocess_cfg`."""
    pictures = [draw(scene, rng, side_px=TRAINING_SIDE_PX) for scene in scenes]
    small = [
        np.asarray(picture.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC))
        for picture in pictures
    ]
    return (
        torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255 - PIXEL_MEAN
    ) / PIXEL_STD


def write(model: torch.nn.Module, folder: Path) -> None:
    """Write the two files of an open_clip model on a hub; float16, the learned scale float32."""
    weights = {
        name: tensor.half().contiguous() if tensor.ndim else tensor
        for name, tensor in model.state_dict().items()
    }
    with atomic_write(folder / "open_clip_model.safetensors") as file:
        file.write(save(weights))
    with atomic_write(folder / "open_clip_config.json") as file:
        file.write((json.dumps(CONFIG, indent=2) + "\n").encode())


def examine(folder: Path, *, n: int, seed: int) -> float:
    """Return recall@1 of `n` held-out scenes among their texts, as open_clip loads the model."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    pictures, texts = zip(*held_out_scenes(n, seed=seed), strict=True)
    model.eval()
    with torch.inference_mode():
        images = model.encode_image(
            torch.stack([transform(picture) for picture in pictures]), normalize=True
        ).numpy()
        embedded = model.encode_text(tokenize(list(texts)), normalize=True).numpy()
    return round(float(recall_at_k(images, embedded, np.arange(n), 1).mean()), 4)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the tiny CLIP model of the test suite.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--examined", type=int, default=240, help="held-out scenes for recall@1, drawn four times"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
