"""The table of node classes, `nodes.toml`, as Python values."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

Expression = str | list["Expression"]
"""A rule that computes an output from the inputs; the top of `nodes.toml` explains its form."""

# A model's answer is not in the file; the text in such a node is its instruction.
_MODEL_TEXT = re.compile(
    r"TextGenerat|LLM|LLaMA|Ollama|GPT|Claude|Gemini|Grok|DeepSeek|Mistral|Kimi|OpenRouter|OpenAI"
    r"|LM ?Studio|Florence|Tagger|Interrogat|Caption|BLIP|LLaVA|Moondream|Molmo|Pixtral|InternVL"
    r"|MiniCPM|(Qwen|Yi|Deep).{0,6}_?VL|VLM|VQA|Vision.?Language|Describe"
    r"|(Img|Image).?(2|To).?(Text|Prompt)"
    r"|Prompt.?(Enhanc|Expan|Upsampl|Optimi|Rewrit|Refin|Generat|Gen$)"
    r"|SuperPrompt|PromptMkr|PhiPrompt|Chat(?!GLM)|Assistant|GLM-?4|Zhipu|Doubao|Sa2VA"
    r"|PaliGemma|Kosmos|Danbooru",
    re.IGNORECASE,
)
_ENCODER_INPUTS = frozenset(
    {"clip", "clip1", "base_clip", "text_encoder", "t5", "chatglm3_model", "bert"}
)
_MODEL_INPUTS = frozenset(
    {"max_tokens", "max_new_tokens", "temperature", "top_p", "system_message", "system_instruction"}
)
_PICTURE_MAKER = re.compile(
    r"image(?!.?(2|to).?(text|prompt))(?!.?(caption|descri))|video|dall", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class NodeKind:
    """One line of the table.

    Args:
        out: an expression for each output.
        fields: what the node puts into its pipe.
        base: the inputs that hold the rest of the pipe; the first one with a field counts.
        widgets: the inputs in the editor's order of values; "*" is a value only the editor uses.
        sampler: the node turns noise into a picture.
        service: the node orders a picture from a service.
    """

    out: list[Expression] = field(default_factory=list)
    fields: Mapping[str, Expression] = field(default_factory=dict)
    base: list[str] = field(default_factory=list)
    widgets: list[str] = field(default_factory=list)
    sampler: bool = False
    service: bool = False


@lru_cache(maxsize=1)
def node_kinds() -> Mapping[str, NodeKind]:
    """Return the table by class name."""
    sections = tomllib.loads(files(__package__).joinpath("nodes.toml").read_text("utf-8"))
    return {name: NodeKind(**row) for rows in sections.values() for name, row in rows.items()}


def is_model_text(kind: str, inputs: Mapping[str, object]) -> bool:
    """Return whether a model writes the node's text while the graph runs."""
    is_model = _MODEL_TEXT.search(kind) is not None or not _MODEL_INPUTS.isdisjoint(inputs)
    return is_model and _ENCODER_INPUTS.isdisjoint(inputs)


def makes_pictures(kind: str, inputs: Mapping[str, object]) -> bool:
    """Return whether a node with a `prompt` orders a picture from a service, not a text."""
    is_picture = _PICTURE_MAKER.search(kind) is not None
    return is_picture or _MODEL_TEXT.search(kind) is None or not _ENCODER_INPUTS.isdisjoint(inputs)
