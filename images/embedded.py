"""The prompt that an image file carries: what the tool that made it wrote beside the pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from images.comfyui import read_graph
from images.metadata import read_texts
from images.opening import DEFAULT_LIMITS, ImageLimits

if TYPE_CHECKING:
    from sd_parsers.data import PromptInfo

# For sd-parsers, whose patterns take quadratic time on text made for it: "Hashes:{" over and over in 64 Ki characters takes
# a second; NovelAI's source, where the pattern is steeper, is a model's name and a hash.
_MAX_PARSED_CHARACTERS = 1 << 16
_MAX_SOURCE_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class EmbeddedPrompt:
    """What the file says that it was made from.

    `negative` is empty where there is none; `tool` is the tool's name as it writes it ("AUTOMATIC1111", "ComfyUI", …; Forge
    and SD.Next write AUTOMATIC1111's format); `settings` maps lower-case names (seed, steps, cfg_scale, sampler, model, …) to
    their text.
    """

    prompt: str
    negative: str
    tool: str
    settings: dict[str, str] = field(default_factory=dict)


def read_embedded_prompt(path: Path, *, limits: ImageLimits = DEFAULT_LIMITS) -> EmbeddedPrompt | None:
    """The prompt that the file at `path` carries; no pixel is decoded.

    Returns:
        None where there is no prompt, or where its metadata cannot be parsed.

    Raises:
        ImageRejected: the file cannot be opened as an image.
    """
    texts = read_texts(path, limits=limits)
    if not texts:
        return None
    comment = texts.pop("UserComment", "")
    if comment:
        texts.setdefault("parameters", comment)
    return _from_parsers(texts) or _from_graph(texts.get("prompt", "")) or _from_graph(comment)


def _from_graph(text: str) -> EmbeddedPrompt | None:
    """ComfyUI's graph, bare or as {"prompt": graph, "workflow": …}."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(graph.get("prompt"), dict):
        graph = graph["prompt"]
    found = read_graph(graph)
    return None if found is None else _cleaned(found.positive, found.negative, "ComfyUI", found.settings)


def _from_parsers(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Every tool that sd-parsers knows but ComfyUI.

    Its parsers are called one by one, not through its manager: that one decodes the pixels of a PNG to find late texts, and
    hands out the texts of an earlier JPEG when a new image gets the freed one's `id`.
    """
    short = {key: text for key, text in texts.items() if len(text) <= _MAX_PARSED_CHARACTERS}
    short["Source"] = short.get("Source", "")[:_MAX_SOURCE_CHARACTERS]
    from sd_parsers import parsers

    for parser in (parsers.FooocusParser, parsers.AUTOMATIC1111Parser, parsers.InvokeAIParser, parsers.NovelAIParser):
        # They raise ValueError, TypeError, AttributeError … on texts of another tool: not theirs, the next one is asked.
        with suppress(Exception):
            info = parser().parse(dict(short))
            found = _cleaned(info.full_prompt, info.full_negative_prompt, str(info.generator.value), _settings(info))
            if found is not None:
                return found
    return None


def _settings(info: PromptInfo) -> dict[str, str]:
    found: dict[str, object] = {}
    for sampler in info.samplers[:1]:
        found |= {"sampler": sampler.name, **sampler.parameters}
        if sampler.model is not None:
            found |= {"model": sampler.model.name, "model_hash": sampler.model.hash}
    for key, value in info.metadata.items():
        found.setdefault(str(key).lower().replace(" ", "_"), value)
    return {key: str(value) for key, value in found.items() if isinstance(value, str | int | float) and value != ""}


def _cleaned(prompt: str, negative: str, tool: str, settings: Mapping[str, str]) -> EmbeddedPrompt | None:
    if not _clean(prompt):
        return None
    return EmbeddedPrompt(_clean(prompt), _clean(negative), tool, {_clean(key): _clean(value) for key, value in settings.items()})


def _clean(text: str) -> str:
    """No NUL and no lone surrogate, which JSON may hold and UTF-8 cannot."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()
