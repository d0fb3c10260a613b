"""Prompts that tools write as a JSON object (or as one text for each field), told apart by where it stands and what is in it.

These are the tools that sd-parsers does not know, and what it refuses of those it knows: InvokeAI
from its third generation on (the model's name and a missing scheduler) and its second where the
prompt is no list, NovelAI and Fooocus where one of the fields that it asks for is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

COMMENTS = (
    *(
        "UserComment",
        "ImageDescription",
        "Description",
        "Comment",
        "Caption",
        "Instructions",
        "Title",
    ),
    *("XPComment", "XPTitle", "XPSubject", "XPKeywords"),
)
"""Keywords and fields that hold any text, also in files that passed through other programs."""

PLACES = (
    "sui_image_params",
    "invokeai_metadata",
    "invokeai",
    "generation_data",
    "parameters-json",
    "sd-metadata",
    "image",
    "extraMetadata",
    "imagemetahub_data",
    "mold:parameters",
    "parameters",
    *COMMENTS,
    "Model",
    "Make",
    "v2",
    "prompt",
    "prompt_api",
    "workflow",
    "invokeai_graph",
)
"""Keywords under which a JSON object may stand, in a file or in another object."""

_MAX_DEPTH = 4
_MAX_ENCODINGS = 3
_MAX_SETTING_CHARACTERS = 10_000
_COPY = re.compile(r" \d{1,3}\Z")


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """What a tool's object said; `negative` is empty where there is none."""

    prompt: str
    negative: str
    tool: str
    settings: dict[str, str]
    is_whole: bool = False
    """It has parts of the prompt that sd-parsers leaves out."""


Parts = Callable[[Mapping[str, object]], tuple[list[str], list[str]]]
"""Further texts of both sides that an object keeps outside of its two fields."""


def _characters(value: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """NovelAI 4 and later: a caption for each character beside that of the whole picture."""
    sides: list[list[str]] = []
    for name in ("v4_prompt", "v4_negative_prompt"):
        caption = _inner(_inner(value, name), "caption")
        rows = caption.get("char_captions")
        rows = rows if isinstance(rows, list) else []
        texts = [row.get("char_caption") for row in rows if isinstance(row, dict)]
        sides.append([text for text in texts if isinstance(text, str) and text.strip()])
    return sides[0], sides[1]


def _regions(value: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """InvokeAI's regional guidance, where the picture as a whole has no prompt."""
    regions = _inner(value, "canvas_v2_metadata").get("regionalGuidance")
    if not isinstance(regions, list) or str(value.get("positive_prompt") or "").strip():
        return [], []
    rows = [row for row in regions if isinstance(row, dict) and row.get("isEnabled", True)]
    positive = [row.get("positivePrompt") for row in rows]
    negative = [row.get("negativePrompt") for row in rows]
    return [text for text in positive if isinstance(text, str)], [
        text for text in negative if isinstance(text, str)
    ]


def _inner(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One tool's object: all of `marks` are in it, and it stands under `place` where that is not empty."""

    tool: str
    prompt: str
    negative: str
    place: str = ""
    marks: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    parts: Parts | None = None


_KINDS = (
    _Kind(
        "SwarmUI",
        "prompt",
        "negativeprompt",
        place="sui_image_params",
        renamed={"cfgscale": "cfg_scale"},
    ),
    _Kind(
        "InvokeAI",
        "positive_prompt",
        "negative_prompt",
        place="invokeai_metadata",
        renamed={"scheduler": "sampler"},
        parts=_regions,
    ),
    _Kind(
        "InvokeAI",
        "positive_conditioning",
        "negative_conditioning",
        place="invokeai",
        renamed={"scheduler": "sampler"},
    ),
    _Kind("InvokeAI", "prompt", "negative_prompt", place="sd-metadata"),
    _Kind("InvokeAI", "prompt", "negative_prompt", place="image", marks=frozenset({"seed"})),
    _Kind("InvokeAI", "prompt", "negative_prompt", place="image", marks=frozenset({"cfg_scale"})),
    _Kind("Tensor.Art", "prompt", "negativePrompt", place="generation_data"),
    _Kind(
        "Stability Matrix",
        "PositivePrompt",
        "NegativePrompt",
        place="parameters-json",
        renamed={"ModelName": "model"},
    ),
    _Kind("Civitai", "prompt", "negativePrompt", place="extraMetadata"),
    _Kind(
        "RuinedFooocus",
        "Prompt",
        "Negative",
        marks=frozenset({"base_model_name"}),
        renamed={"base_model_name": "model"},
    ),
    _Kind(
        "Easy Diffusion",
        "prompt",
        "negative_prompt",
        marks=frozenset({"use_stable_diffusion_model"}),
    ),
    _Kind(
        "Easy Diffusion", "Prompt", "Negative Prompt", marks=frozenset({"Stable Diffusion model"})
    ),
    _Kind("Fooocus", "prompt", "negative_prompt", marks=frozenset({"base_model", "styles"})),
    _Kind("Fooocus", "prompt", "negative_prompt", marks=frozenset({"real_prompt"})),
    _Kind("Fooocus", "Prompt", "Negative Prompt", marks=frozenset({"Styles", "Performance"})),
    _Kind("Sygil", "SD:prompt", "SD:negative_prompt", marks=frozenset({"SD:prompt"})),
    _Kind("AI Horde", "prompt", "negative_prompt", marks=frozenset({"params", "models"})),
    _Kind("Draw Things", "c", "uc", marks=frozenset({"c", "uc"})),
    _Kind("Draw Things", "c", "uc", marks=frozenset({"c", "sampler", "seed"})),
    _Kind("NovelAI", "prompt", "uc", marks=frozenset({"uc", "sampler"}), parts=_characters),
    _Kind("NovelAI", "prompt", "uc", marks=frozenset({"v4_prompt"}), parts=_characters),
    _Kind("mold", "prompt", "negative_prompt", place="mold:parameters"),
    _Kind(
        "ComfyUI",
        "prompt",
        "negativePrompt",
        place="imagemetahub_data",
        marks=frozenset({"generator"}),
    ),
    _Kind(
        "Hugging Face",
        "prompt",
        "negative_prompt",
        marks=frozenset({"num_inference_steps", "guidance_scale"}),
    ),
)
_GENERIC = tuple(
    _Kind("", "prompt", negative, marks=frozenset({"prompt", mark}))
    for mark, negative in (
        ("negative_prompt", "negative_prompt"),
        ("negativePrompt", "negativePrompt"),
        ("seed", "negative_prompt"),
        ("steps", "negative_prompt"),
    )
)
"""An object with a prompt and another of the things that make a picture, of an unknown writer."""
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
_MODEL_FIELDS = {
    "name": "model",
    "model_name": "model",
    "modelFileName": "model",
    "hash": "model_hash",
}

Objects = list[tuple[str, Mapping[str, object]]]


def objects(texts: Mapping[str, str]) -> Objects:
    """Every JSON object in `texts` with the keyword that it stands under, outer before inner; `texts` itself is under "".

    Keywords count in any case, and a second text of the same keyword ("UserComment 2") as the
    first.
    """
    found: Objects = [("", texts)]
    keywords: dict[str, list[str]] = {}
    for keyword in texts:
        keywords.setdefault(_COPY.sub("", keyword).lower(), []).append(keyword)
    for place in PLACES:
        for keyword in keywords.get(place.lower(), ()):
            found.extend(_objects(place, texts[keyword], 0))
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
    """An object, also one that was encoded again as a text, and one whose texts hold raw line ends."""
    value: object = text
    for _ in range(_MAX_ENCODINGS):
        if not isinstance(value, str):
            break
        value = value.strip("\0\ufeff \t\r\n")  # Tensor.Art ends its text with NULs
        if not value.startswith(("{", '"{', '"\\"')):
            return None
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return None
    return value


def read_record(found: Objects) -> PromptRecord | None:
    """The first object that a tool of the table wrote with a prompt in it."""
    return _first_record(found, _KINDS)


def read_generic(found: Objects) -> PromptRecord | None:
    """The first object with a plain prompt, and settings beside it, that no known tool wrote."""
    record = _first_record(found, _GENERIC)
    is_plain = record is not None and not record.prompt.lstrip().startswith(("{", "[", '"{'))
    return record if is_plain else None


def _first_record(found: Objects, kinds: tuple[_Kind, ...]) -> PromptRecord | None:
    for kind in kinds:
        for place, value in found:
            if (kind.place and place != kind.place) or not kind.marks <= value.keys():
                continue
            further = ([], []) if kind.parts is None else kind.parts(value)
            names = (kind.prompt, kind.negative)
            prompt, negative = (
                _joined(value.get(n), texts) for n, texts in zip(names, further, strict=True)
            )
            if prompt.strip(" \0\n"):
                settings = _settings(value, kind)
                return PromptRecord(prompt, negative, kind.tool, settings, is_whole=any(further))
    return None


def _joined(text: object, further: list[str]) -> str:
    if not further:
        return text if isinstance(text, str) else ""
    texts = [part.strip() for part in (text, *further) if isinstance(part, str)]
    return ", ".join(dict.fromkeys(part for part in texts if part))


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
            settings |= {
                part: str(inner) for part, inner in parts if part and isinstance(inner, str)
            }
        elif (
            isinstance(item, str | int | float)
            and 0 < len(text := str(item)) <= _MAX_SETTING_CHARACTERS
        ):
            settings.setdefault(name, text)
    if "size" not in settings and {"width", "height"} <= settings.keys():
        settings["size"] = f"{settings['width']}x{settings['height']}"
    return settings


def _snake(key: str) -> str:
    """ "cfgScale", "CfgScale" and "Guidance Scale" as "cfg_scale" and "guidance_scale"."""
    key = key.removeprefix("SD:")
    words = "".join(
        "_" + char if char.isupper() and before.islower() else char
        for before, char in zip(" " + key, key, strict=False)
    )
    return words.lower().replace(" ", "_")
