"""A tiny OFA; weights are made from tensor names, so two implementations get the same ones."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from imprompt.ensemble.ofa.captioner import PROMPT
from imprompt.ensemble.ofa.ofa_config import END, START, OfaConfig

HERE = Path(__file__).parent
REFERENCE = HERE / "reference.safetensors"
LARGE_NAMES = HERE / "large_state_dict.tsv"

TINY: dict[str, Any] = {
    "model_type": "ofa",
    "vocab_size": 320,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "resnet_type": "resnet50",
    "max_position_embeddings": 64,
    "token_bucket_size": 8,
    "image_bucket_size": 30,
}
"""All sizes differ, and token buckets are few, so that a prompt reaches the logarithmic ones."""
LARGE: dict[str, Any] = {
    "model_type": "ofa",
    "vocab_size": 59457,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "resnet_type": "resnet152",
}
TINY_CONFIG = OfaConfig(**{name: value for name, value in TINY.items() if name != "model_type"})
LARGE_CONFIG = OfaConfig(**{name: value for name, value in LARGE.items() if name != "model_type"})

LATE, EARLY = 0.0, 1.15
"""Pulls captions to their end: at the limit, or after 1, 7 and 19 tokens."""
_END_PULLED = "decoder.layer_norm.bias"


def uniform(name: str, shape: Iterable[int]) -> Tensor:
    """Return float32 in -1 to 1, a function of the name and the shape.

    PCG64's raw stream is the same in every NumPy.
    """
    shape = tuple(shape)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    raw = np.random.PCG64(seed).random_raw(math.prod(shape)).reshape(shape)
    return torch.from_numpy((raw >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - 1)


def weights(shapes: dict[str, tuple[int, ...]], *, pull: float = LATE) -> dict[str, Tensor]:
    """Return random parameters, large enough that every term of the network shows."""
    found = {name: _parameter(name, shape) for name, shape in shapes.items()}
    if _END_PULLED in found:
        found[_END_PULLED] = found[_END_PULLED] + pull * found["encoder.embed_tokens.weight"][END]
    return found


def _parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1000)
    if name.endswith(("embed_tokens.weight", "output_projection.weight")):
        name = "encoder.embed_tokens.weight"
    values = uniform(name, shape)
    if name.endswith("running_var"):
        return 1 + values / 2
    if len(shape) == 4:
        return values * math.sqrt(6 / math.prod(shape[1:]))
    if len(shape) == 2:
        return values / 2
    if name.endswith("bn3.weight"):
        return 0.3 + values / 10
    return (1 + values / 3) if name.endswith(("weight", "c_attn")) else values / 5


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of parameters and statistics, without tables."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if tensor.is_floating_point() or name.endswith("num_batches_tracked")
    }


def pixels(n: int) -> Tensor:
    """(n, 3, 64, 96) in -1 to 1: 4 x 6 patches, so that rows cannot be taken for columns."""
    return uniform("pixels", (n, 3, 64, 96))


def prompt_ids(n: int) -> Tensor:
    """(n, 12) one prompt for all, from the start token to the end token."""
    words = (uniform("prompt", (10,)).abs() * 300).long() + 4
    return torch.cat([torch.tensor([START]), words, torch.tensor([END])]).expand(n, -1)


def answer_ids(n: int) -> Tensor:
    """(n, 14) answers that differ, behind the start token; no padding among them."""
    words = (uniform("answers", (n, 13)).abs() * 300).long() + 4
    return torch.cat([torch.full((n, 1), START), words], dim=1)


def picture(seed: int) -> Image.Image:
    """An RGB picture that is not square."""
    values = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((90, 60), Image.Resampling.BICUBIC)


def write_vocabulary(folder: Path) -> None:
    """Write vocab.json and merges.txt of a byte-level BPE: 4 control tokens first, 310 in all."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=310,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROMPT] * 10, trainer)
    tokenizer.model.save(str(folder))


def write_checkpoint(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A folder as `OfaCaptioner.load` wants it, the weights in pytorch_model.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY))
    write_vocabulary(folder)
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder
