"""The named builds of `build-index --preset`.

There is no `auto`: the same command builds the same index everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Preset(StrEnum):
    """The names that `--preset` takes."""

    LITE = "lite"
    CLIP = "clip"


@dataclass(frozen=True, slots=True)
class PresetParts:
    """The encoder and corpus of a preset, and a line to show when it was not chosen by name."""

    encoder: str
    corpus: str
    described: str


PRESETS = {
    Preset.LITE: PresetParts(
        encoder="lite",
        corpus="starter",
        described="Preset lite: the small built-in encoder over 5,000 synthetic prompts, nothing "
        "to download. `--preset clip` is far better: ViT-H-14 over DiffusionDB's real prompts, a "
        "download of 4.2 GB.",
    ),
    Preset.CLIP: PresetParts(
        encoder="ViT-H-14/laion2b_s32b_b79k",
        corpus="diffusiondb-2m",
        described="Preset clip: ViT-H-14/laion2b_s32b_b79k over diffusiondb-2m.",
    ),
}
