"""A prompt with its settings as AUTOMATIC1111 writes them, for its "read parameters" button and for other tools."""

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
"""AUTOMATIC1111's own names, in its order; other settings come behind them."""


def infotext(found: EmbeddedPrompt) -> str:
    """Return the prompt, "Negative prompt: …" where there is one, and a line of settings where there are some.

    `imprompt.images.prompts.parameters.read_parameters` reads the same prompt, negative prompt and settings
    from it. The form is that of `create_infotext` in the webui's modules/processing.py.
    """
    lines = [found.prompt]
    if found.negative:
        lines.append(f"Negative prompt: {found.negative}")
    settings = _with_size(found.settings)
    order = [
        *(name for name in _FIRST if name in settings),
        *(name for name in settings if name not in _FIRST),
    ]
    if order:
        lines.append(", ".join(f"{_name(name)}: {_value(settings[name])}" for name in order))
    return "\n".join(lines)


def _with_size(settings: Mapping[str, str]) -> dict[str, str]:
    """Width and height as one setting, which is how the webui writes them."""
    if not {"width", "height"} <= settings.keys():
        return dict(settings)
    left = {name: value for name, value in settings.items() if name not in ("width", "height")}
    return {"size": f"{settings['width']}x{settings['height']}", **left}


def _name(name: str) -> str:
    plain = name.replace("_", " ")
    return _FIRST.get(name) or f"{plain[:1].upper()}{plain[1:]}"


def _value(value: str) -> str:
    """The value, in quotes where the reader of the form would take signs of it for its own.

    `quote` in the webui's modules/infotext_utils.py does so for what divides settings.
    """
    divides = any(sign in value for sign in ",:\n\r") or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if divides or value.startswith('"') else value
