"""Prompts that tools write as a JSON object (or as one text for each field).

Tools are recognized by the keyword of the object and by its fields. These are the tools that
sd-parsers does not know, and what it refuses of those it knows: InvokeAI from version 3 on (the
model's name and a missing scheduler) and version 2 where the prompt is not a list, NovelAI and
Fooocus where a field that it requires is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

COMMENTS = (
    *("UserComment", "ImageDescription", "Description", "Comment", "Caption", "Instructions"),
    *("Title", "XPComment", "XPTitle", "XPSubject", "XPKeywords"),
)
"""Keywords and fields for any text, which files keep when other programs save them again."""

_OBJECT_KEYWORDS = (
    *("sui_image_params", "invokeai_metadata", "invokeai", "generation_data", "parameters-json"),
    *("sd-metadata", "image", "extraMetadata", "imagemetahub_data", "mold:parameters"),
    *("parameters", *COMMENTS, "Model", "Make", "v2", "prompt", "prompt_api", "workflow"),
    "invokeai_graph",
)
"""Keywords of JSON objects, in a file or in another object."""

_MAX_DEPTH = 4
_MAX_ENCODINGS = 3
_MAX_SETTING_CHARACTERS = 10_000
_COPY = re.compile(r" \d{1,3}\Z")


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """The prompt in a tool's object; `negative` is empty without one."""

    prompt: str
    negative: str
    tool: str
    settings: dict[str, str]
    is_whole: bool = False
    """It includes parts of the prompt that sd-parsers ignores."""


FurtherTexts = Callable[[Mapping[str, object]], tuple[list[str], list[str]]]
"""Returns the positive and negative texts that an object keeps outside its two fields."""


def _characters(value: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Return the captions that NovelAI 4 and later write for each character."""
    sides: list[list[str]] = []
    for name in ("v4_prompt", "v4_negative_prompt"):
        caption = _inner(_inner(value, name), "caption")
        rows = caption.get("char_captions")
        rows = rows if isinstance(rows, list) else []
        texts = [row.get("char_caption") for row in rows if isinstance(row, dict)]
        sides.append([text for text in texts if isinstance(text, str) and text.strip()])
    return sides[0], sides[1]


def _regions(value: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Return InvokeAI's regional guidance, where the whole picture has no prompt."""
    regions = _inner(value, "canvas_v2_metadata").get("regionalGuidance")
    if not isinstance(regions, list) or str(value.get("positive_prompt") or "").strip():
        return [], []
    rows = [row for row in regions if isinstance(row, dict) and row.get("isEnabled", True)]
    positive, negative = (
        [row[name] for row in rows if isinstance(row.get(name), str)]
        for name in ("positivePrompt", "negativePrompt")
    )
    return positive, negative


def _inner(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


@dataclass(frozen=True, slots=True)
class _RecordForm:
    """One tool's object: it has the fields `required`, and the keyword `keyword` if one is set."""

    tool: str
    prompt: str
    negative: str
    keyword: str = ""
    required: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    further: FurtherTexts | None = None


_FROM_SCHEDULER = {"scheduler": "sampler"}
_FORMS = (
    _RecordForm(
        *("SwarmUI", "prompt", "negativeprompt"),
        keyword="sui_image_params",
        renamed={"cfgscale": "cfg_scale"},
    ),
    _RecordForm(
        *("InvokeAI", "positive_prompt", "negative_prompt"),
        keyword="invokeai_metadata",
        renamed=_FROM_SCHEDULER,
        further=_regions,
    ),
    _RecordForm(
        *("InvokeAI", "positive_conditioning", "negative_conditioning"),
        keyword="invokeai",
        renamed=_FROM_SCHEDULER,
    ),
    _RecordForm("InvokeAI", "prompt", "negative_prompt", keyword="sd-metadata"),
    _RecordForm("InvokeAI", "prompt", "negative_prompt", keyword="image", required=("seed",)),
    _RecordForm("InvokeAI", "prompt", "negative_prompt", keyword="image", required=("cfg_scale",)),
    _RecordForm("Tensor.Art", "prompt", "negativePrompt", keyword="generation_data"),
    _RecordForm(
        *("Stability Matrix", "PositivePrompt", "NegativePrompt"),
        keyword="parameters-json",
        renamed={"ModelName": "model"},
    ),
    _RecordForm("Civitai", "prompt", "negativePrompt", keyword="extraMetadata"),
    _RecordForm(
        *("RuinedFooocus", "Prompt", "Negative"),
        required=("base_model_name",),
        renamed={"base_model_name": "model"},
    ),
    _RecordForm(
        *("Easy Diffusion", "prompt", "negative_prompt"), required=("use_stable_diffusion_model",)
    ),
    _RecordForm(
        *("Easy Diffusion", "Prompt", "Negative Prompt"), required=("Stable Diffusion model",)
    ),
    _RecordForm("Fooocus", "prompt", "negative_prompt", required=("base_model", "styles")),
    _RecordForm("Fooocus", "prompt", "negative_prompt", required=("real_prompt",)),
    _RecordForm("Fooocus", "Prompt", "Negative Prompt", required=("Styles", "Performance")),
    _RecordForm("Sygil", "SD:prompt", "SD:negative_prompt", required=("SD:prompt",)),
    _RecordForm("AI Horde", "prompt", "negative_prompt", required=("params", "models")),
    _RecordForm("Draw Things", "c", "uc", required=("c", "uc")),
    _RecordForm("Draw Things", "c", "uc", required=("c", "sampler", "seed")),
    _RecordForm("NovelAI", "prompt", "uc", required=("uc", "sampler"), further=_characters),
    _RecordForm("NovelAI", "prompt", "uc", required=("v4_prompt",), further=_characters),
    _RecordForm("mold", "prompt", "negative_prompt", keyword="mold:parameters"),
    _RecordForm(
        *("ComfyUI", "prompt", "negativePrompt"),
        keyword="imagemetahub_data",
        required=("generator",),
    ),
    _RecordForm(
        *("Hugging Face", "prompt", "negative_prompt"),
        required=("num_inference_steps", "guidance_scale"),
    ),
)
"""The tools' forms; the first that fits an object counts."""
_GENERIC_FORMS = (
    _RecordForm("", "prompt", "negative_prompt", required=("prompt", "negative_prompt")),
    _RecordForm("", "prompt", "negativePrompt", required=("prompt", "negativePrompt")),
    _RecordForm("", "prompt", "negative_prompt", required=("prompt", "seed")),
    _RecordForm("", "prompt", "negative_prompt", required=("prompt", "steps")),
)
"""Objects of unknown tools: a prompt and another setting of a picture."""
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

JsonObjects = list[tuple[str, Mapping[str, object]]]


def base_keyword(keyword: str) -> str:
    """Return a keyword without the number of a repeated one ("UserComment 2")."""
    return _COPY.sub("", keyword)


def json_objects(texts: Mapping[str, str]) -> JsonObjects:
    """Return every JSON object in `texts` with its keyword, outer before inner.

    The first is `texts` itself, under "". Keywords match in any case, and repeated ones
    ("UserComment 2") as the first.
    """
    objects: JsonObjects = [("", texts)]
    copies: dict[str, list[str]] = {}
    for keyword in texts:
        copies.setdefault(base_keyword(keyword).lower(), []).append(keyword)
    for name in _OBJECT_KEYWORDS:
        for keyword in copies.get(name.lower(), ()):
            objects.extend(_nested(name, texts[keyword], 0))
    return objects


def _nested(keyword: str, value: object, depth: int) -> Iterator[tuple[str, Mapping[str, object]]]:
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, dict) or depth == _MAX_DEPTH:
        return
    yield keyword, value
    for inner in _OBJECT_KEYWORDS:
        if inner in value:
            yield from _nested(inner, value[inner], depth + 1)


def _parsed(text: str) -> object:
    """Return the JSON in a text, also if encoded repeatedly or with raw line ends; or else None."""
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


def read_record(objects: JsonObjects) -> PromptRecord | None:
    """Return the first object with a prompt in the form of a known tool."""
    return _first_record(objects, _FORMS)


def read_generic(objects: JsonObjects) -> PromptRecord | None:
    """Return the first object of an unknown tool with a plain prompt and another setting."""
    record = _first_record(objects, _GENERIC_FORMS)
    is_plain = record is not None and not record.prompt.lstrip().startswith(("{", "[", '"{'))
    return record if is_plain else None


def _first_record(objects: JsonObjects, forms: tuple[_RecordForm, ...]) -> PromptRecord | None:
    for form in forms:
        for keyword, value in objects:
            if form.keyword not in ("", keyword) or not value.keys() >= set(form.required):
                continue
            further = ([], []) if form.further is None else form.further(value)
            prompt = _joined(value.get(form.prompt), further[0])
            negative = _joined(value.get(form.negative), further[1])
            if prompt.strip(" \0\n"):
                settings = _settings(value, form)
                return PromptRecord(prompt, negative, form.tool, settings, is_whole=any(further))
    return None


def _joined(text: object, further: list[str]) -> str:
    if not further:
        return text if isinstance(text, str) else ""
    texts = [part.strip() for part in (text, *further) if isinstance(part, str)]
    return ", ".join(dict.fromkeys(part for part in texts if part))


def _settings(value: Mapping[str, object], form: _RecordForm) -> dict[str, str]:
    """Return the fields that hold one value, and the name and hash of a model that is an object."""
    settings: dict[str, str] = {}
    for key, item in value.items():
        if key in (form.prompt, form.negative):
            continue
        name = _snake(key)
        name = form.renamed.get(key) or _RENAMED.get(name, name)
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
    """Return "cfg_scale" for "cfgScale" and "CfgScale", "guidance_scale" for "Guidance Scale"."""
    key = key.removeprefix("SD:")
    words = "".join(
        "_" + char if char.isupper() and before.islower() else char
        for before, char in zip(" " + key, key, strict=False)
    )
    return words.lower().replace(" ", "_")
