"""Licences and sizes of hub files that are known without a request.

Every figure is from the page that `source` names; all others come from the hub on request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imprompt.core.hub.hub_files import HubFile

_HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """A repository: its licence ("" if unknown), and file sizes in bytes, to three digits."""

    licence: str
    source: str
    sizes: Mapping[str, int] = field(default_factory=dict)


KNOWN = {
    "sentence-transformers/all-MiniLM-L6-v2": RepositoryFacts(
        "Apache-2.0",
        f"{_HUB}/sentence-transformers/all-MiniLM-L6-v2/tree/main",
        {"model.safetensors": 90_868_376, "tokenizer.json": 466_247},
    ),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": RepositoryFacts(
        "MIT",
        # A copy, because the page of the original does not list the sizes.
        f"{_HUB}/hoaiht/CLIP-ViT-H-14-laion2B-s32B-b79K/tree/main",
        {
            "open_clip_pytorch_model.bin": 3_940_000_000,
            "open_clip_model.safetensors": 3_940_000_000,
        },
    ),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": RepositoryFacts(
        "MIT",
        f"{_HUB}/laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        # The page states no size: 151,277,313 weights of four bytes.
        {"open_clip_pytorch_model.bin": 605_000_000, "open_clip_model.safetensors": 605_000_000},
    ),
    "timm/vit_large_patch14_clip_224.openai": RepositoryFacts(
        "Apache-2.0", f"{_HUB}/timm/vit_large_patch14_clip_224.openai/tree/main"
    ),
    "timm/vit_base_patch32_clip_224.openai": RepositoryFacts(
        "Apache-2.0",
        f"{_HUB}/timm/vit_base_patch32_clip_224.openai/commit/768915ca7a925843d5e7887687d71da0e9b0a8f0",
    ),
    "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k": RepositoryFacts(
        "Apache-2.0",
        f"{_HUB}/timm/vit_base_patch16_224.augreg2_in21k_ft_in1k/tree/3feba41e737e1b28af8e1fd7dca8eed073385972",
        {"model.safetensors": 346_000_000, "pytorch_model.bin": 346_000_000},
    ),
    "Salesforce/blip-image-captioning-large": RepositoryFacts(
        "BSD-3-Clause",
        f"{_HUB}/Salesforce/blip-image-captioning-large/tree/353689b859fcf0523410b1806dace5fb46ecdf41",
        {
            "model.safetensors": 1_880_000_000,
            "tokenizer.json": 711_000,
            "vocab.txt": 232_000,
            "config.json": 4_600,
        },
    ),
    "OFA-Sys/ofa-large-caption": RepositoryFacts("Apache-2.0", "https://github.com/OFA-Sys/OFA"),
    "poloclub/diffusiondb": RepositoryFacts(
        "CC0-1.0",
        f"{_HUB}/datasets/poloclub/diffusiondb/blob/45987a4fde50b1e298188c5e5e6d58dd64e4ecc8/metadata.parquet",
        # metadata-large.parquet: …/diffusiondb/commit/1622615f9b0b2a964ec82da0a63b4b20982243ea
        {"metadata.parquet": 195_000_000, "metadata-large.parquet": 824_655_226},
    ),
    "Gustavosta/Stable-Diffusion-Prompts": RepositoryFacts(
        "",
        f"{_HUB}/datasets/Gustavosta/Stable-Diffusion-Prompts/tree/f40484704ca5bdeb389483123ba017897f1bfcdc/data",
        {"data/train.parquet": 9_230_000, "data/eval.parquet": 1_030_000},
    ),
}


def licence_of(file: HubFile) -> str:
    """Return the licence of the file's repository, or "" if unknown."""
    known = KNOWN.get(file.repo)
    return known.licence if known else ""


def size_of(file: HubFile) -> int | None:
    """Return about how many bytes the file has, or None if unknown."""
    known = KNOWN.get(file.repo)
    return known.sizes.get(file.filename) if known else None
