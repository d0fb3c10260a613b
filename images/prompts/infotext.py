"""A prompt written in AUTOMATIC1111's form, for its "read parameters" button and other tools."""

from __future__ import annotations

import json
from collections.abc import Mapping

from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt

_FIRST = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model_hash": "Model hash",
    "model": "Model",
    "vae": "VAE",
    "denoising_strength": "Denoising strength",
    "clip_skip": "Clip skip",
}
"""AUTOMATIC1111's names in its order; other settings follow."""


def infotext(prompt: EmbeddedPrompt) -> str:
    """Return the prompt, "Negative prompt: …" and a line of settings, each where there is one.

    `read_parameters` of `imprompt.images.prompts.parameters` reads the same parts from it. The form
    is that of `create_infotext` in the webui's modules/processing.py.
    """
    lines = [prompt.prompt]
    if prompt.negative:
        lines.append(f"Negative prompt: {prompt.negative}")
    if settings := webui_settings(prompt.settings):
        lines.append(", ".join(f"{name}: {_value(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def webui_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return settings under AUTOMATIC1111's names and in its order."""
    sized = with_size(settings)
    order = [
        *(name for name in _FIRST if name in sized),
        *(name for name in sized if name not in _FIRST),
    ]
    return {_name(name): sized[name] for name in order}


def with_size(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings with width and height joined, as the webui writes them."""
    if not {"width", "height"} <= settings.keys():
        return dict(settings)
    others = {name: value for name, value in settings.items() if name not in ("width", "height")}
    return {"size": f"{settings['width']}x{settings['height']}", **others}


def _name(name: str) -> str:
    plain = name.replace("_", " ")
    return _FIRST.get(name) or f"{plain[:1].upper()}{plain[1:]}"


def _value(value: str) -> str:
    """Return the value, quoted where it contains what separates settings.

    `quote` in the webui's modules/infotext_utils.py does the same.
    """
    separates = any(sign in value for sign in ",:\n\r") or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if separates or value.startswith('"') else value
