"""The prompt that an image file carries: what the tool that made it wrote beside the pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from imprompt.core.errors import MetadataRejected
from imprompt.images.image_opening import DEFAULT_LIMITS, ImageLimits, source_name
from imprompt.images.metadata.characters import user_comment
from imprompt.images.metadata.file_texts import read_texts
from imprompt.images.prompts.comfyui import is_graph, is_workflow, read_graph, read_workflow
from imprompt.images.prompts.dream import read_dream
from imprompt.images.prompts.invoke_graph import read_invoke_graph
from imprompt.images.prompts.midjourney import read_midjourney
from imprompt.images.prompts.mochi import read_mochi
from imprompt.images.prompts.parameters import Parameters, read_parameters
from imprompt.images.prompts.records import (
    COMMENTS,
    Objects,
    PromptRecord,
    objects,
    read_generic,
    read_record,
)

if TYPE_CHECKING:
    from sd_parsers.data import PromptInfo

# For sd-parsers' patterns: NovelAI's takes quadratic time, and its source is a model's name and a
# hash.
_MAX_PARSED_CHARACTERS = 1 << 16
_MAX_SOURCE_CHARACTERS = 256
_PARSED_KEYWORDS = ("parameters", "sd-metadata", "Comment", "Description", "Source")
_MAX_DOUBT = 300
_MAX_PLAIN = 1 << 14
"""Characters of a prompt without any mark that it is one."""

_KEYWORDS = {
    name.lower(): name
    for name in (
        "parameters",
        "Comment",
        "Description",
        "Dream",
        "UserComment",
        "Software",
        "Source",
    )
}
_GRAPH_PLACES = frozenset({"prompt", "prompt_api", "parameters", *COMMENTS})
_INFOTEXTS = frozenset({"parameters", "title", "postprocessing", *COMMENTS})

_COPY = re.compile(r" \d{1,3}\Z")
_HORDE_CLIENTS = ("ArtBot", "Stable UI", "Lucid Creations", "AI Horde")
_TOOLS = (
    *(
        "Fooocus",
        "ComfyUI",
        "Draw Things",
        "Mochi Diffusion",
        "InvokeAI",
        "SwarmUI",
        "NovelAI",
        "Easy Diffusion",
    ),
    *("DiffusionBee", "Stability Matrix", "RuinedFooocus", *_HORDE_CLIENTS),
)
_PLAIN = {"parameters": "AUTOMATIC1111", "mold:prompt": "mold"}
_NO_PROMPT = frozenset({"none", "null", "undefined", "nan"})
"""What a program writes for a prompt that it does not have."""
# Names of the block that a program copied a field from: ImageMagick's "exif:UserComment".
_NAMESPACE = re.compile(r"(?i)(?:exif|tiff|xmp|dc|iptc|photoshop|png|itxt|text|comment):(?=\w)")
_OCTETS = re.compile(r"\s*\d{1,3}(?:,\s?\d{1,3}){8,}\s*")


How: TypeAlias = Literal["exact", "carried"]


@dataclass(frozen=True, slots=True)
class EmbeddedPrompt:
    """What the file says that it was made from.

    `negative` is empty where there is none; `tool` is the tool's name as it writes it
    ("AUTOMATIC1111", "ComfyUI", …; Forge and SD.Next write AUTOMATIC1111's format); `settings` maps
    lower-case names (seed, steps, cfg_scale, sampler, model, …) to their text.
    `docs/embedded-prompts.md` lists the tools.

    `doubt` says in one line what keeps the texts from being those that the picture was made with
    ("CLIPTextEncode ← Ollama Generate: written by a model"); it is empty where they are.
    """

    prompt: str
    negative: str
    tool: str
    settings: dict[str, str] = field(default_factory=dict)
    doubt: str = ""

    @property
    def how(self) -> How:
        """ "exact" where the picture was made with these texts, "carried" where the file has them and more happened."""
        return "carried" if self.doubt else "exact"


def prompt_json(found: EmbeddedPrompt | None) -> dict[str, object]:
    """Return plain JSON values: null for each field where there is no prompt, and for a doubt that there is not."""
    if found is None:
        return {
            "prompt": None,
            "how": None,
            "negative": None,
            "tool": None,
            "settings": {},
            "doubt": None,
        }
    return {
        "prompt": found.prompt,
        "how": found.how,
        "negative": found.negative,
        "tool": found.tool,
        "settings": found.settings,
        "doubt": found.doubt or None,
    }


def read_embedded_prompt(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS
) -> EmbeddedPrompt | None:
    """Return the prompt that a file, or the bytes of one, carries; no pixel is decoded.

    Returns:
        None where there is no prompt, or where its metadata cannot be parsed.

    Raises:
        MetadataRejected: a text is beyond `imprompt.images.metadata.file_texts.MAX_TEXT_BYTES`, and no other
            has a prompt; the picture may be fine.
        ImageRejected: the file cannot be opened as an image.
    """
    read = read_texts(source, limits=limits)
    found = prompt_of_texts(read.texts)
    if found is None and read.left_out:
        raise MetadataRejected(source_name(source), read.left_out)
    return found


def prompt_of_texts(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Return the prompt in the texts of a file by keyword, as `imprompt.images.metadata.file_texts.read_texts` gives them."""
    if not texts:
        return None
    texts = _named(texts)
    found = objects(texts)
    record = read_record(found)
    graph = _from_graphs(found)
    if record is not None and record.tool == "ComfyUI" and graph is not None and not graph.doubt:
        return graph
    # A record without these fields may be a later tool's; sd-parsers knows its three tools better
    # than the table does.
    if record is None or (record.tool in ("NovelAI", "Fooocus") and not record.is_whole):
        parsed = _from_parsers(texts)
        if parsed is not None:
            return parsed
    if record is not None:
        doubt = graph.doubt if graph is not None and record.tool == "ComfyUI" else ""
        return _from_record(record, doubt)
    return (
        _from_dream(texts.get("Dream", ""))
        or _from_parameters(texts, found, has_graph=graph is not None)
        or graph
        or _from_invoke_graph(found)
        or _from_record(read_generic(found))
        or _from_any_keyword(texts)
        or _from_plain(texts)
    )


def _named(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts with the keywords that tools are known by, whatever case they were written in.

    Where PNG has a text of its own for each keyword, other formats have a comment alone.
    """
    named = dict(texts)
    for keyword, text in texts.items():
        bare = _NAMESPACE.sub("", keyword, count=1)
        if bare != keyword:
            text = _from_octets(text)
        named.setdefault(_KEYWORDS.get(bare.lower(), bare), text)
    for keyword in ("UserComment", "ImageDescription"):
        if named.get(keyword):
            named.setdefault("parameters", named[keyword])
    return named


def _from_record(record: PromptRecord | None, doubt: str = "") -> EmbeddedPrompt | None:
    if record is None:
        return None
    prompt, negative = record.prompt, record.negative
    if record.tool in _HORDE_CLIENTS and not negative:
        prompt, _, negative = prompt.partition("###")
    return _cleaned(prompt, negative, record.tool, record.settings, doubt)


def _from_octets(text: str) -> str:
    """The text that a program wrote as the numbers of its bytes."""
    if not _OCTETS.fullmatch(text):
        return text
    with suppress(ValueError):
        return user_comment(bytes(int(number) for number in text.split(",")))
    return text


def _from_parsers(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Fooocus, InvokeAI's second generation and NovelAI, by sd-parsers.

    Its parsers are called one by one, not through its manager: that one decodes the pixels of a PNG
    to find late texts, and hands out the texts of an earlier JPEG when a new image gets the freed
    one's `id`. The prompts are joined here: `full_prompt` is a list in Fooocus's files.
    """
    short = {
        key: text
        for key in _PARSED_KEYWORDS
        if 0 < len(text := texts.get(key, "")) <= _MAX_PARSED_CHARACTERS
    }
    if (
        not short.get("parameters", "").lstrip().startswith("{")
        and "sd-metadata" not in short
        and "Comment" not in short
    ):
        return None
    short["Source"] = short.get("Source", "")[:_MAX_SOURCE_CHARACTERS]
    from sd_parsers import parsers

    for parser in (parsers.FooocusParser, parsers.InvokeAIParser, parsers.NovelAIParser):
        # They raise ValueError, TypeError, AttributeError … on texts of another tool: not theirs,
        # the next one is asked.
        with suppress(Exception):
            info = parser().parse(dict(short))
            prompt, negative = (
                ", ".join(map(str, part)) for part in (info.prompts, info.negative_prompts)
            )
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
    return {
        key: str(value)
        for key, value in found.items()
        if isinstance(value, str | int | float) and value != ""
    }


def _from_dream(text: str) -> EmbeddedPrompt | None:
    found = read_dream(text)
    return (
        None
        if found is None
        else _cleaned(found.prompt, found.negative, "InvokeAI", found.settings)
    )


def _from_parameters(
    texts: Mapping[str, str], found: Objects, *, has_graph: bool
) -> EmbeddedPrompt | None:
    """AUTOMATIC1111's text, Mochi's or Midjourney's, bare, or as a field of a JSON object."""
    bare = (text for keyword, text in texts.items() if _COPY.sub("", keyword) in _INFOTEXTS)
    inner = (value.get("parameters") for place, value in found if place)
    candidates = [texts.get("parameters", ""), *bare, *inner]
    for text in dict.fromkeys(text for text in candidates if isinstance(text, str) and text):
        if (job := read_midjourney(text)) is not None:
            return _cleaned(job.prompt, "", "Midjourney", job.settings)
        if (caption := read_mochi(text)) is not None:
            return _cleaned(caption.prompt, caption.negative, "Mochi Diffusion", caption.settings)
        if (parts := read_parameters(text)) is not None:
            tool = _writer(parts.settings, texts, has_graph=has_graph)
            prompt, negative = _sides(parts, tool)
            if written := _cleaned(prompt, negative, tool, parts.settings):
                return written
    return None


def _sides(parts: Parameters, tool: str) -> tuple[str, str]:
    """Prompt and negative prompt, also where a tool has marks of its own between them."""
    if parts.negative:
        return parts.prompt, parts.negative
    if tool in _HORDE_CLIENTS:
        prompt, _, negative = parts.prompt.partition("###")
        return prompt, negative
    if tool == "Draw Things":
        prompt, _, negative = parts.prompt.rpartition("\n-")
        return (prompt, negative) if prompt else (parts.prompt, "")
    return parts.prompt, ""


def _writer(settings: Mapping[str, str], texts: Mapping[str, str], *, has_graph: bool) -> str:
    """Who wrote AUTOMATIC1111's text: forks go under its name, other programs that use its form say who they are."""
    if not settings.keys().isdisjoint({"civitai_resources", "civitai_metadata"}):
        return "Civitai"
    version = settings.get("version", "")
    named = (
        texts.get("Software", ""),
        texts.get("CreatorTool", ""),
        settings.get("generator", ""),
        version,
    )
    if "strength" in settings:  # AUTOMATIC1111 says "Denoising strength"
        return "Draw Things"
    for tool in _TOOLS:
        if any(name.startswith(tool) for name in named):
            return tool
    return "ComfyUI" if has_graph else "AUTOMATIC1111"


def _from_any_keyword(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """AUTOMATIC1111's text with its settings, wherever it stands."""
    known = {text for keyword, text in texts.items() if _COPY.sub("", keyword) in _INFOTEXTS}
    for text in dict.fromkeys(text for text in texts.values() if text not in known):
        if text.lstrip().startswith(("{", "[", "<", '"')):
            continue
        parts = read_parameters(text)
        if parts is not None and len(parts.settings) > 1:
            tool = _writer(parts.settings, texts, has_graph=False)
            return _cleaned(parts.prompt, parts.negative, tool, parts.settings)
    return None


def _from_graphs(found: Objects) -> EmbeddedPrompt | None:
    """ComfyUI's graph, bare or as {"prompt": graph, "workflow": …}; Civitai's has one field more.

    The editor's graph is read where there is no other, or none with a prompt.
    """
    for place, value in found:
        graph = read_graph(value) if place in _GRAPH_PLACES else None
        if graph is not None:
            tool = "Civitai" if "extraMetadata" in value else "ComfyUI"
            return _cleaned(graph.positive, graph.negative, tool, graph.settings, graph.doubt)
    if any(place in ("prompt", "prompt_api") and is_graph(value) for place, value in found):
        return None
    for _, value in found:
        graph = read_workflow(value) if is_workflow(value) else None
        if graph is not None:
            return _cleaned(graph.positive, graph.negative, "ComfyUI", graph.settings, graph.doubt)
    return None


def _from_invoke_graph(found: Objects) -> EmbeddedPrompt | None:
    for place, value in found:
        graph = read_invoke_graph(value) if place == "invokeai_graph" else None
        if graph is not None:
            return _cleaned(graph.positive, graph.negative, "InvokeAI", graph.settings, graph.doubt)
    return None


def _from_plain(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """A prompt alone, under a keyword that nothing else is written under."""
    for keyword, tool in _PLAIN.items():
        text = texts.get(keyword, "")
        is_from_png = keyword not in ("parameters",) or text not in (
            texts.get("UserComment"),
            texts.get("ImageDescription"),
        )
        is_short = 0 < len(text.strip()) <= _MAX_PLAIN
        is_plain = is_short and not text.lstrip().startswith(("{", "[", "<", '"{'))
        # What the webui's form has settings or a negative prompt of, but no prompt, is none.
        is_plain = is_plain and text.strip("\0 \r\n").lower() not in _NO_PROMPT
        if is_plain and is_from_png and read_parameters(text) is None:
            return _cleaned(text, "", tool, {})
    return None


def _cleaned(
    prompt: str, negative: str, tool: str, settings: Mapping[str, str], doubt: str = ""
) -> EmbeddedPrompt | None:
    if not _clean(prompt):
        return None
    named = {_clean(key): _clean(value) for key, value in settings.items()}
    return EmbeddedPrompt(
        _clean(prompt), _clean(negative), tool, named, " ".join(_clean(doubt).split())[:_MAX_DOUBT]
    )


def _clean(text: str) -> str:
    """No NUL and no lone surrogate, which JSON may hold and UTF-8 cannot."""
    plain = text.replace("\0", "").strip().removeprefix("\ufeff")
    return plain.encode("utf-8", "replace").decode("utf-8").strip()
