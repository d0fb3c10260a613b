"""Mochi Diffusion's caption: `Include in Image: …; Exclude from Image: …; Model: …; Steps: …`."""

from __future__ import annotations

import re

from imprompt.images.prompts.prompt_parts import PromptParts

_BEGIN, _EXCLUDED = "Include in Image: ", "Exclude from Image: "
_FIRST_SETTING = re.compile(r"; (?=(?:Exclude from Image|Model|Steps|Guidance Scale|Seed): )")
_RENAMED = {"guidance_scale": "cfg_scale", "scheduler": "sampler"}


def read_mochi(text: str) -> PromptParts | None:
    """Return the parts of a caption; None where another tool wrote the text."""
    if not text.lstrip().startswith(_BEGIN):
        return None
    prompt, *others = _FIRST_SETTING.split(text.strip().removeprefix(_BEGIN))
    negative, settings = "", dict[str, str]()
    for part in others:
        if part.startswith(_EXCLUDED):
            negative = part.removeprefix(_EXCLUDED)
            continue
        for item in part.split("; "):
            key, mark, value = item.partition(": ")
            name = key.strip().lower().replace(" ", "_")
            if mark and value.strip():
                settings.setdefault(_RENAMED.get(name, name), value.strip())
    return PromptParts(prompt.strip(), negative.strip(), settings)
