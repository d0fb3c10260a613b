"""Prompts that tools write as a JSON object (or as one text for each field), told apart by where it stands and what is in it.

These are the tools that sd-parsers does not know, and what it refuses of those it knows: InvokeAI from its third generation on
(the model's name and a missing scheduler) and its second where the prompt is no list, NovelAI and Fooocus where one of the
fields that it asks for is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PLACES = (
    "sui_image_params",
    "invokeai_metadata",
    "invokeai",
    "generation_data",
    "parameters-json",
    "sd-metadata",
    "image",
    "extraMetadata",
    "parameters",
    "UserComment",
    "Comment",
    "prompt",
)
"""Keywords under which a JSON object may stand, in a file or in another object."""

_MAX_DEPTH = 3
_MAX_SETTING_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Record:
    """What a tool's object said; `negative` is empty where there is none."""

    prompt: str
    negative: str
    tool: str
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One tool's object: all of `marks` are in it, and it stands under `place` where that is not empty."""

    tool: str
    prompt: str
    negative: str
    place: str = ""
    marks: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)


_KINDS = (
    _Kind("SwarmUI", "prompt", "negativeprompt", place="sui_image_params", renamed={"cfgscale": "cfg_scale"}),
    _Kind("InvokeAI", "positive_prompt", "negative_prompt", place="invokeai_metadata", renamed={"scheduler": "sampler"}),
    _Kind("InvokeAI", "positive_conditioning", "negative_conditioning", place="invokeai", renamed={"scheduler": "sampler"}),
    _Kind("InvokeAI", "prompt", "negative_prompt", place="image", marks=frozenset({"cfg_scale"})),
    _Kind("Tensor.Art", "prompt", "negativePrompt", place="generation_data"),
    _Kind("Stability Matrix", "PositivePrompt", "NegativePrompt", place="parameters-json", renamed={"ModelName": "model"}),
    _Kind("Civitai", "prompt", "negativePrompt", place="extraMetadata"),
    _Kind("RuinedFooocus", "Prompt", "Negative", marks=frozenset({"base_model_name"}), renamed={"base_model_name": "model"}),
    _Kind("Easy Diffusion", "prompt", "negative_prompt", marks=frozenset({"use_stable_diffusion_model"})),
    _Kind("Easy Diffusion", "Prompt", "Negative Prompt", marks=frozenset({"Stable Diffusion model"})),
    _Kind("Fooocus", "prompt", "negative_prompt", marks=frozenset({"base_model", "styles"})),
    _Kind("NovelAI", "prompt", "uc", marks=frozenset({"uc", "sampler"})),
    _Kind("Hugging Face", "prompt", "negative_prompt", marks=frozenset({"num_inference_steps", "guidance_scale"})),
)
_RENAMED = {
    "scale": "cfg_scale",
    "cfg": "cfg_scale",
    "guidance_scale": "cfg_scale",
    "num_inference_steps": "steps",
    "sampler_name": "sampler",
    "noise_schedule": "scheduler",
    "use_stable_diffusion_model": "model",
    "stable_diffusion_model": "model",
    "base_model": "model",
    "base_model_hash": "model_hash",
}
_MODEL_FIELDS = {"name": "model", "model_name": "model", "modelFileName": "model", "hash": "model_hash"}

Objects = list[tuple[str, Mapping[str, object]]]


def objects(texts: Mapping[str, str]) -> Objects:
    """Every JSON object in `texts` with the keyword that it stands under, outer before inner; `texts` itself is under ""."""
    found: Objects = [("", texts)]
    for place in PLACES:
        if place in texts:
            found.extend(_objects(place, texts[place], 0))
    return found


def _objects(place: str, value: object, depth: int) -> Iterator[tuple[str, Mapping[str, object]]]:
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, dict) or depth == _MAX_DEPTH:
        return
    yield place, value
    for inner in PLACES:
        if inner in value:
            yield from _objects(inner, value[inner], depth + 1)


def _parsed(text: str) -> object:
    text = text.strip("\0 \t\r\n")  # Tensor.Art ends its text with NULs
    if not text.startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_record(found: Objects) -> Record | None:
    """The first object that a tool of the table wrote with a prompt in it."""
    for kind in _KINDS:
        for place, value in found:
            prompt, negative = value.get(kind.prompt), value.get(kind.negative)
            if (kind.place and place != kind.place) or not kind.marks <= value.keys():
                continue
            if isinstance(prompt, str) and prompt.strip(" \0\n"):
                return Record(prompt, negative if isinstance(negative, str) else "", kind.tool, _settings(value, kind))
    return None


def _settings(value: Mapping[str, object], kind: _Kind) -> dict[str, str]:
    """The fields that hold one value, and the name and hash of a model that is an object of its own."""
    settings: dict[str, str] = {}
    for key, item in value.items():
        if key in (kind.prompt, kind.negative):
            continue
        name = _snake(key)
        name = kind.renamed.get(key) or _RENAMED.get(name, name)
        if isinstance(item, dict) and name == "model":
            parts = ((_MODEL_FIELDS.get(part), inner) for part, inner in item.items())
            settings |= {part: str(inner) for part, inner in parts if part and isinstance(inner, str)}
        elif isinstance(item, str | int | float) and 0 < len(text := str(item)) <= _MAX_SETTING_CHARACTERS:
            settings.setdefault(name, text)
    return settings


def _snake(key: str) -> str:
    """ "cfgScale", "CfgScale" and "Guidance Scale" as "cfg_scale" and "guidance_scale"."""
    words = "".join(
        "_" + char if char.isupper() and before.islower() else char for before, char in zip(" " + key, key, strict=False)
    )
    return words.lower().replace(" ", "_")
