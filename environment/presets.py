"""The named builds of `build-index --preset`.

There is no `auto`: the same command builds the same index everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Preset(StrEnum):
    """The names that `--preset` takes."""

    LITE = "lite"
    CLIP_SMALL = "clip-small"
    CLIP = "clip"


@dataclass(frozen=True, slots=True)
class PresetParts:
    """The encoder and corpus of a preset, and how many random rows are read (None: all).

    `described` is shown when the build uses both.
    """

    encoder: str
    corpus: str
    described: str
    sample: int | None = None


PRESETS = {
    Preset.LITE: PresetParts(
        encoder="lite",
        corpus="starter",
        described="Preset lite: the small built-in encoder over 5,000 synthetic prompts, nothing "
        "to download. `--preset clip-small` searches 200,000 real prompts with a CLIP model: "
        "a download of 0.8 GB.",
    ),
    Preset.CLIP_SMALL: PresetParts(
        encoder="ViT-B-32/laion2b_s34b_b79k",
        corpus="diffusiondb-2m",
        described="Preset clip-small: ViT-B-32/laion2b_s34b_b79k over 200,000 prompts of "
        "diffusiondb-2m.",
        sample=200_000,
    ),
    Preset.CLIP: PresetParts(
        encoder="ViT-H-14/laion2b_s32b_b79k",
        corpus="diffusiondb-2m",
        described="Preset clip: ViT-H-14/laion2b_s32b_b79k over diffusiondb-2m. Use a GPU: it "
        "takes days on a processor, where `--preset clip-small` takes hours.",
    ),
}
