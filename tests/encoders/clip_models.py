"""Small open_clip models with random weights, in the layout of a hub repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from imprompt.core.values import Vectors

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "resnet-short-context": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 64,
            "layers": [1, 1, 1, 1],
            "width": 8,
            "head_width": 16,
            "patch_size": None,
        },
        "text_cfg": {**TEXT, "context_length": 21},
    },
    "convnext": {
        "embed_dim": 24,
        "vision_cfg": {
            "timm_model_name": "convnext_atto",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "image_size": 64,
        },
        "text_cfg": TEXT,
    },
    "custom-text": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "proj_bias": True},
    },
    "eos-pool": {
        "embed_dim": 24,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407},
    },
    "siglip": {
        "embed_dim": 32,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": VIT,
        "text_cfg": {
            **TEXT,
            "context_length": 64,
            "no_causal_mask": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
    "first-pool": {
        "embed_dim": 24,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "pool_type": "first", "no_causal_mask": True},
    },
    "two-ways": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": {**TEXT, "no_causal_mask": True}},
    "coca": {
        "embed_dim": 32,
        "custom_text": True,
        "multimodal_cfg": {
            "width": 32,
            "context_length": 76,
            "vocab_size": 49408,
            "layers": 1,
            "heads": 2,
            "n_queries": 4,
            "attn_pooler_heads": 2,
        },
        "vision_cfg": {
            **VIT,
            "attentional_pool": True,
            "attn_pooler_queries": 4,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
    },
}
PREPROCESS = {
    "mean": [0.5, 0.45, 0.4],
    "std": [0.3, 0.25, 0.2],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def write_model(
    folder: Path,
    architecture: str,
    *,
    seed: int = 0,
    suffix: str = "safetensors",
    preprocess: bool = True,
) -> Path:
    """Write a model of `ARCHITECTURES`; every weight is random, also those that start at 0 or 1."""
    folder.mkdir(parents=True)
    config = {
        "model_cfg": ARCHITECTURES[architecture],
        "preprocess_cfg": PREPROCESS if preprocess else {},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict()
        for tensor in weights.values():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.2)
    if suffix == "safetensors":
        save_file(weights, folder / "open_clip_model.safetensors")
    else:
        torch.save(weights, folder / "open_clip_pytorch_model.bin")
    return folder


def write_hugging_face_model(folder: Path) -> Path:
    """Write a model with a Hugging Face text tower and tokenizer of eight words in its folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig

    folder.mkdir()
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "red", "blue", "cat"]
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")  # noqa: S106 no password
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106 no password
    ).save_pretrained(folder)
    tower = RobertaConfig(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    tower.save_pretrained(folder / "text-tower")
    config = {
        **ARCHITECTURES["vit"],
        "quick_gelu": False,
        "text_cfg": {"context_length": 16, "hf_model_name": str(folder / "text-tower")},
    }
    config["text_cfg"]["hf_tokenizer_name"] = "someone/tokenizer"
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False
        )
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


class Oracle:
    """Encode with open_clip's functions, one text at a time, padded to the full context."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name)

    def texts(self, texts: list[str]) -> Vectors:
        with torch.no_grad():
            return np.concatenate(
                [
                    self.model.encode_text(self.tokenizer([text]), normalize=True).numpy()
                    for text in texts
                ]
            )

    def images(self, pictures: list[Image.Image]) -> Vectors:
        with torch.no_grad():
            return np.concatenate(
                [
                    self.model.encode_image(self.preprocess(picture)[None], normalize=True).numpy()
                    for picture in pictures
                ]
            )


def random_pictures(seed: int = 0) -> list[Image.Image]:
    """RGB pictures of coloured blocks in several sizes: wide, tall, tiny, and the models' own."""
    rng = np.random.default_rng(seed)
    sizes = [(90, 40), (40, 90), (3, 5), (32, 32), (64, 64)]
    blocks = [Image.fromarray(rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)) for _ in sizes]
    return [
        block.resize(size, Image.Resampling.NEAREST)
        for block, size in zip(blocks, sizes, strict=True)
    ]


TEXTS = [
    "a red circle left of a blue square",
    "",
    "castle, " * 60,
    "a castle on a hill at dusk, oil painting, dramatic light, highly detailed, "
    "trending on artstation",
    "Grüße &amp; \n\t 你好 <end_of_text> !!!",
    "cat",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen",
]
