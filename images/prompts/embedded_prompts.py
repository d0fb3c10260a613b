"""The prompt in an image file, as the tool that made the image wrote it there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from imprompt.core.errors import MetadataRejected
from imprompt.images.image_opening import DEFAULT_LIMITS, ImageLimits, source_name
from imprompt.images.metadata.characters import user_comment
from imprompt.images.metadata.file_texts import read_texts
from imprompt.images.metadata.hidden_texts import read_hidden_texts
from imprompt.images.prompts.comfyui import is_graph, is_workflow, read_graph, read_workflow
from imprompt.images.prompts.dream import read_dream
from imprompt.images.prompts.invoke_graph import read_invoke_graph
from imprompt.images.prompts.midjourney import read_midjourney
from imprompt.images.prompts.mochi import read_mochi
from imprompt.images.prompts.parameters import read_parameters
from imprompt.images.prompts.prompt_parts import PromptParts
from imprompt.images.prompts.records import (
    COMMENTS,
    JsonObjects,
    PromptRecord,
    base_keyword,
    json_objects,
    read_generic,
    read_record,
)

if TYPE_CHECKING:
    from sd_parsers.data import PromptInfo

# sd-parsers' pattern for NovelAI takes quadratic time; NovelAI's source is a model name and a hash.
_MAX_PARSED_CHARACTERS = 1 << 16
_MAX_SOURCE_CHARACTERS = 256
_PARSED_KEYWORDS = ("parameters", "sd-metadata", "Comment", "Description", "Source")
_MAX_DOUBT = 300
_MAX_PLAIN = 1 << 14
"""Characters of a prompt that nothing marks as one."""

_KEYWORDS = {
    name.lower(): name
    for name in (
        *("parameters", "Comment", "Description", "Dream", "UserComment", "Software", "Source"),
    )
}
_GRAPH_KEYWORDS = frozenset({"prompt", "prompt_api", "parameters", *COMMENTS})
_INFOTEXTS = frozenset({"parameters", "title", "postprocessing", *COMMENTS})

_HORDE_CLIENTS = ("ArtBot", "Stable UI", "Lucid Creations", "AI Horde")
_TOOLS = (
    *("Fooocus", "ComfyUI", "Draw Things", "Mochi Diffusion", "InvokeAI", "SwarmUI", "NovelAI"),
    *("Easy Diffusion", "DiffusionBee", "Stability Matrix", "RuinedFooocus", *_HORDE_CLIENTS),
)
_PLAIN = {"parameters": "AUTOMATIC1111", "mold:prompt": "mold"}
_NO_PROMPT = frozenset({"none", "null", "undefined", "nan"})
"""What programs write for a missing prompt."""
# Names of the block from which a program copied a field: ImageMagick's "exif:UserComment".
_NAMESPACE = re.compile(r"(?i)(?:exif|tiff|xmp|dc|iptc|photoshop|png|itxt|text|comment):(?=\w)")
_OCTETS = re.compile(r"\s*\d{1,3}(?:,\s?\d{1,3}){8,}\s*")


How: TypeAlias = Literal["exact", "carried"]


@dataclass(frozen=True, slots=True)
class EmbeddedPrompt:
    """The prompt in a file, with what else its tool wrote there.

    Args:
        negative: the negative prompt; empty without one.
        tool: the tool's name as it writes it ("AUTOMATIC1111", "ComfyUI", …; Forge and SD.Next
            write AUTOMATIC1111's format). `docs/embedded-prompts.md` lists the tools.
        settings: lower-case names (seed, steps, cfg_scale, sampler, model, …) to their text.
        doubt: one line on why the picture may have been made with other texts ("CLIPTextEncode ←
            Ollama Generate: written by a model"); empty where the texts are certain.
    """

    prompt: str
    negative: str
    tool: str
    settings: dict[str, str] = field(default_factory=dict)
    doubt: str = ""

    @property
    def how(self) -> How:
        """Return "exact" where the texts are certain, "carried" where there is a doubt."""
        return "carried" if self.doubt else "exact"


def prompt_json(prompt: EmbeddedPrompt | None) -> dict[str, object]:
    """Return plain JSON values: null for every field without a prompt, and for a missing doubt."""
    return {
        "prompt": prompt.prompt if prompt else None,
        "how": prompt.how if prompt else None,
        "negative": prompt.negative if prompt else None,
        "tool": prompt.tool if prompt else None,
        "settings": prompt.settings if prompt else {},
        "doubt": (prompt.doubt or None) if prompt else None,
    }


def read_embedded_prompt(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS, hidden: bool = False
) -> EmbeddedPrompt | None:
    """Return the prompt in a file, or in the bytes of one.

    Args:
        hidden: where the texts of the file have no prompt, also search the pixels of PNG and WebP
            files, which decodes them. Otherwise no pixel is decoded.

    Returns:
        None where there is no prompt, or where its metadata cannot be parsed.

    Raises:
        MetadataRejected: a text is beyond `imprompt.images.metadata.file_texts.MAX_TEXT_BYTES`, and
            no other has a prompt; the picture may be fine.
        ImageRejected: the file cannot be opened as an image.
    """
    texts = read_texts(source, limits=limits)
    prompt = prompt_of_texts(texts.texts)
    if prompt is None and texts.left_out:
        raise MetadataRejected(source_name(source), texts.left_out)
    if prompt is None and hidden:
        prompt = prompt_of_texts(read_hidden_texts(source, limits=limits))
    return prompt


def prompt_of_texts(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Return the prompt in a file's texts by keyword; None without one."""
    if not texts:
        return None
    texts = _with_known_keywords(texts)
    objects = json_objects(texts)
    record = read_record(objects)
    graph = _from_graphs(objects)
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
        _cleaned(read_dream(texts.get("Dream", "")), "InvokeAI")
        or _from_parameters(texts, objects, has_graph=graph is not None)
        or graph
        or _from_invoke_graph(objects)
        or _from_record(read_generic(objects))
        or _from_any_keyword(texts)
        or _from_plain(texts)
    )


def _with_known_keywords(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the texts, also under the keywords by which tools are recognized.

    Keywords are matched in any case and without a block's name ("exif:UserComment"). A comment
    counts as "parameters", too: formats other than PNG have no keywords.
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
    return _cleaned(PromptParts(prompt, negative, record.settings, doubt), record.tool)


def _from_octets(text: str) -> str:
    """Return the text that a program wrote as the numbers of its bytes; any other text as is."""
    if not _OCTETS.fullmatch(text):
        return text
    with suppress(ValueError):
        return user_comment(bytes(int(number) for number in text.split(",")))
    return text


def _from_parsers(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Return what sd-parsers reads of Fooocus, InvokeAI 2 and NovelAI.

    Its parsers are called one by one, not through its manager: the manager decodes the pixels of a
    PNG to find late texts, and returns the texts of an earlier JPEG when a new image gets the freed
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
        # They raise ValueError, TypeError, AttributeError … on texts of another tool.
        with suppress(Exception):
            info = parser().parse(dict(short))
            prompt, negative = (
                ", ".join(map(str, part)) for part in (info.prompts, info.negative_prompts)
            )
            parts = PromptParts(prompt, negative, _settings(info))
            if parsed := _cleaned(parts, str(info.generator.value)):
                return parsed
    return None


def _settings(info: PromptInfo) -> dict[str, str]:
    settings: dict[str, object] = {}
    for sampler in info.samplers[:1]:
        settings |= {"sampler": sampler.name, **sampler.parameters}
        if sampler.model is not None:
            settings |= {"model": sampler.model.name, "model_hash": sampler.model.hash}
    for key, value in info.metadata.items():
        settings.setdefault(str(key).lower().replace(" ", "_"), value)
    return {
        key: str(value)
        for key, value in settings.items()
        if isinstance(value, str | int | float) and value != ""
    }


def _from_parameters(
    texts: Mapping[str, str], objects: JsonObjects, *, has_graph: bool
) -> EmbeddedPrompt | None:
    """Read AUTOMATIC1111's, Mochi's or Midjourney's text, bare or as a field of a JSON object."""
    bare = (text for keyword, text in texts.items() if base_keyword(keyword) in _INFOTEXTS)
    inner = (value.get("parameters") for keyword, value in objects if keyword)
    candidates = [texts.get("parameters", ""), *bare, *inner]
    for text in dict.fromkeys(text for text in candidates if isinstance(text, str) and text):
        if (job := read_midjourney(text)) is not None:
            return _cleaned(job, "Midjourney")
        if (caption := read_mochi(text)) is not None:
            return _cleaned(caption, "Mochi Diffusion")
        if (parts := read_parameters(text)) is not None:
            tool = _writer(parts.settings, texts, has_graph=has_graph)
            if cleaned := _cleaned(_divided(parts, tool), tool):
                return cleaned
    return None


def _divided(parts: PromptParts, tool: str) -> PromptParts:
    """Return the parts, the prompt divided where a tool marks its negative prompt differently."""
    if not parts.negative and tool in _HORDE_CLIENTS:
        prompt, _, negative = parts.prompt.partition("###")
        return replace(parts, prompt=prompt, negative=negative)
    if not parts.negative and tool == "Draw Things" and "\n-" in parts.prompt:
        prompt, _, negative = parts.prompt.rpartition("\n-")
        return replace(parts, prompt=prompt, negative=negative) if prompt else parts
    return parts


def _writer(settings: Mapping[str, str], texts: Mapping[str, str], *, has_graph: bool) -> str:
    """Return the tool that wrote AUTOMATIC1111's text.

    Forks go under AUTOMATIC1111's name; other programs that use its form name themselves.
    """
    if not settings.keys().isdisjoint({"civitai_resources", "civitai_metadata"}):
        return "Civitai"
    named = (
        *(texts.get("Software", ""), texts.get("CreatorTool", "")),
        *(settings.get("generator", ""), settings.get("version", "")),
    )
    if "strength" in settings:  # AUTOMATIC1111 says "Denoising strength"
        return "Draw Things"
    for tool in _TOOLS:
        if any(name.startswith(tool) for name in named):
            return tool
    return "ComfyUI" if has_graph else "AUTOMATIC1111"


def _from_any_keyword(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Read AUTOMATIC1111's text with its settings under any keyword."""
    known = {text for keyword, text in texts.items() if base_keyword(keyword) in _INFOTEXTS}
    for text in dict.fromkeys(text for text in texts.values() if text not in known):
        if text.lstrip().startswith(("{", "[", "<", '"')):
            continue
        parts = read_parameters(text)
        if parts is not None and len(parts.settings) > 1:
            tool = _writer(parts.settings, texts, has_graph=False)
            return _cleaned(parts, tool)
    return None


def _from_graphs(objects: JsonObjects) -> EmbeddedPrompt | None:
    """Read ComfyUI's graph, bare or as {"prompt": graph, "workflow": …}; Civitai adds one field.

    The editor's graph is read where there is no other, or none with a prompt.
    """
    for keyword, value in objects:
        graph = read_graph(value) if keyword in _GRAPH_KEYWORDS else None
        if graph is not None:
            tool = "Civitai" if "extraMetadata" in value else "ComfyUI"
            return _cleaned(graph, tool)
    if any(keyword in ("prompt", "prompt_api") and is_graph(value) for keyword, value in objects):
        return None
    for _, value in objects:
        graph = read_workflow(value) if is_workflow(value) else None
        if graph is not None:
            return _cleaned(graph, "ComfyUI")
    return None


def _from_invoke_graph(objects: JsonObjects) -> EmbeddedPrompt | None:
    for keyword, value in objects:
        graph = read_invoke_graph(value) if keyword == "invokeai_graph" else None
        if graph is not None:
            return _cleaned(graph, "InvokeAI")
    return None


def _from_plain(texts: Mapping[str, str]) -> EmbeddedPrompt | None:
    """Read a prompt without any mark, under a keyword that holds nothing else."""
    comments = (texts.get("UserComment"), texts.get("ImageDescription"))
    for keyword, tool in _PLAIN.items():
        text = texts.get(keyword, "")
        if keyword == "parameters" and text in comments:  # a comment may be anything
            continue
        is_short = 0 < len(text.strip()) <= _MAX_PLAIN
        is_plain = is_short and not text.lstrip().startswith(("{", "[", "<", '"{'))
        is_plain = is_plain and text.strip("\0 \r\n").lower() not in _NO_PROMPT
        # AUTOMATIC1111's form with settings or a negative prompt alone has no prompt.
        if is_plain and read_parameters(text) is None:
            return _cleaned(PromptParts(text, "", {}), tool)
    return None


def _cleaned(parts: PromptParts | None, tool: str) -> EmbeddedPrompt | None:
    """Return the prompt with clean texts; None where nothing is left of it."""
    if parts is None or not _clean(parts.prompt):
        return None
    settings = {_clean(key): _clean(value) for key, value in parts.settings.items()}
    doubt = " ".join(_clean(parts.doubt).split())[:_MAX_DOUBT]
    return EmbeddedPrompt(_clean(parts.prompt), _clean(parts.negative), tool, settings, doubt)


def _clean(text: str) -> str:
    """Return the text without NULs and lone surrogates, which JSON may hold and UTF-8 cannot."""
    plain = text.replace("\0", "").strip().removeprefix("\ufeff")
    return plain.encode("utf-8", "replace").decode("utf-8").strip()
