"""The prompt that an image file carries: what the tool that made it wrote beside the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from images.comfyui import read_graph
from images.dream import read_dream
from images.metadata import read_texts
from images.opening import DEFAULT_LIMITS, ImageLimits
from images.parameters import read_parameters
from images.records import Objects, objects, read_record

if TYPE_CHECKING:
    from sd_parsers.data import PromptInfo

# For sd-parsers' patterns: NovelAI's takes quadratic time, and its source is a model's name and a hash.
_MAX_PARSED_CHARACTERS = 1 << 16
_MAX_SOURCE_CHARACTERS = 256
_PARSED_KEYWORDS = ("parameters", "sd-metadata", "Comment", "Description", "Source")


@dataclass(frozen=True, slots=True)
class EmbeddedPrompt:
    """What the file says that it was made from.

    `negative` is empty where there is none; `tool` is the tool's name as it writes it ("AUTOMATIC1111", "ComfyUI", …; Forge
    and SD.Next write AUTOMATIC1111's format); `settings` maps lower-case names (seed, steps, cfg_scale, sampler, model, …) to
    their text. `docs/embedded-prompts.md` lists the tools.
    """

    prompt: str
    negative: str
    tool: str
    settings: dict[str, str] = field(default_factory=dict)


def read_embedded_prompt(source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> EmbeddedPrompt | None:
    """The prompt that a file, or the bytes of one, carries; no pixel is decoded.

    Returns:
        None where there is no prompt, or where its metadata cannot be parsed.

    Raises:
        MetadataRejected: its texts are beyond `images.metadata.MAX_TEXT_BYTES`; the picture itself may be fine.
        ImageRejected: the file cannot be opened as an image.
    """
    return prompt_of_texts(read_texts(source, limits=limits))


def prompt_of_texts(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """The prompt in the texts of a file by keyword, as `images.metadata.read_texts` gives them."""
    if not texts:
        return None
    texts = dict(texts)
    # Where PNG has a text of its own for each keyword, other formats have the comment alone.
    for keyword in ("UserComment", "ImageDescription"):
        if texts.get(keyword):
            texts.setdefault("parameters", texts[keyword])
    found = objects(texts)
    record = read_record(found)
    # A record without these fields may be a later tool's; sd-parsers knows its three tools better than the table does.
    if record is None or record.tool in ("NovelAI", "Fooocus"):
        parsed = _from_parsers(texts)
        if parsed is not None:
            return parsed
    if record is not None:
        return _cleaned(record.prompt, record.negative, record.tool, record.settings)
    return _from_dream(texts.get("Dream", "")) or _from_parameters(texts, found) or _from_graphs(found)


def _from_parsers(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Fooocus, InvokeAI's second generation and NovelAI, by sd-parsers.

    Its parsers are called one by one, not through its manager: that one decodes the pixels of a PNG to find late texts, and
    hands out the texts of an earlier JPEG when a new image gets the freed one's `id`. The prompts are joined here:
    `full_prompt` is a list in Fooocus's files.
    """
    short = {key: text for key in _PARSED_KEYWORDS if 0 < len(text := texts.get(key, "")) <= _MAX_PARSED_CHARACTERS}
    if not short.get("parameters", "").lstrip().startswith("{") and "sd-metadata" not in short and "Comment" not in short:
        return None
    short["Source"] = short.get("Source", "")[:_MAX_SOURCE_CHARACTERS]
    from sd_parsers import parsers

    for parser in (parsers.FooocusParser, parsers.InvokeAIParser, parsers.NovelAIParser):
        # They raise ValueError, TypeError, AttributeError … on texts of another tool: not theirs, the next one is asked.
        with suppress(Exception):
            info = parser().parse(dict(short))
            prompt, negative = (", ".join(map(str, part)) for part in (info.prompts, info.negative_prompts))
            found = _cleaned(prompt, negative, str(info.generator.value), _settings(info))
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


def _from_dream(text: str) -> EmbeddedPrompt | None:
    found = read_dream(text)
    return None if found is None else _cleaned(found.prompt, found.negative, "InvokeAI", found.settings)


def _from_parameters(texts: Mapping[str, str], found: Objects) -> EmbeddedPrompt | None:
    """AUTOMATIC1111's text, bare or as a field of a JSON object."""
    candidates = [texts.get("parameters", ""), *(value.get("parameters") for place, value in found if place)]
    for text in candidates:
        parts = read_parameters(text) if isinstance(text, str) and text else None
        if parts is not None:
            return _cleaned(parts.prompt, parts.negative, _writer(parts.settings), parts.settings)
    return None


def _writer(settings: Mapping[str, str]) -> str:
    """Who wrote AUTOMATIC1111's text: forks go under its name, other programs that use its form say who they are."""
    if not settings.keys().isdisjoint({"civitai_resources", "civitai_metadata"}):
        return "Civitai"
    version = settings.get("version", "")
    return next((tool for tool in ("Fooocus", "ComfyUI") if version.startswith(tool)), "AUTOMATIC1111")


def _from_graphs(found: Objects) -> EmbeddedPrompt | None:
    """ComfyUI's graph, bare or as {"prompt": graph, "workflow": …}; Civitai's has one field more."""
    for place, value in found:
        graph = read_graph(value) if place in ("prompt", "parameters", "UserComment", "Comment") else None
        if graph is not None:
            tool = "Civitai" if "extraMetadata" in value else "ComfyUI"
            return _cleaned(graph.positive, graph.negative, tool, graph.settings)
    return None


def _cleaned(prompt: str, negative: str, tool: str, settings: Mapping[str, str]) -> EmbeddedPrompt | None:
    if not _clean(prompt):
        return None
    return EmbeddedPrompt(_clean(prompt), _clean(negative), tool, {_clean(key): _clean(value) for key, value in settings.items()})


def _clean(text: str) -> str:
    """No NUL and no lone surrogate, which JSON may hold and UTF-8 cannot."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()
