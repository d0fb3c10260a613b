"""Which models of transformers the member `caption` can use, and what they are asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprompt.core.errors import ConfigError, WeightsRejected, first_line
from imprompt.core.hub.fetch import Announce
from imprompt.encoders.foreign import NEEDS_CODE, read_json
from imprompt.encoders.transformers_files import unknown_type
from imprompt.ensemble.blend_config import CaptionStyle

CHAT_PROMPTS: dict[CaptionStyle, str] = {
    "sentence": "Describe this image in one sentence, written as a prompt for Stable Diffusion. "
    "Answer with the sentence only.",
    "tags": "Describe this image as a prompt for Stable Diffusion: a comma-separated list of tags "
    "for subject, medium, style, colors and lighting. Answer with the list only.",
}
MAX_ANSWER_TOKENS = 96
"""Of a model that is asked."""
_NO_PROMPTS: dict[CaptionStyle, str] = {"sentence": ""}


_APOLOGY = re.compile(
    r"(i'm |i am )?(very |so )?sorry\b"
    r"|i (can't|cannot|can not|won't|am unable|am not able|don't see|do not see)\b"
    r"|i'm (unable|not able)\b|unable to\b|as an ai\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CaptionModel:
    """A model type of transformers.

    `models` are well-known models of the type. `prompts` are by style of caption; an empty one
    means that the model gets the image alone. `chat` models get theirs in the chat template of
    their repository.
    """

    models: str
    prompts: Mapping[CaptionStyle, str]
    chat: bool = False


MODEL_TYPES = {
    "blip": CaptionModel("BLIP", _NO_PROMPTS),
    "blip-2": CaptionModel("BLIP-2", _NO_PROMPTS),
    "florence2": CaptionModel("Florence-2 of florence-community", {"sentence": "<CAPTION>"}),
    "git": CaptionModel("GIT", _NO_PROMPTS),
    "idefics3": CaptionModel("Idefics3, SmolVLM", CHAT_PROMPTS, chat=True),
    "llava": CaptionModel("LLaVA 1.5, JoyCaption", CHAT_PROMPTS, chat=True),
    "llava_next": CaptionModel("LLaVA 1.6", CHAT_PROMPTS, chat=True),
    "paligemma": CaptionModel("PaliGemma, PaliGemma 2", {"sentence": "<image>caption en"}),
    "qwen2_5_vl": CaptionModel("Qwen2.5-VL", CHAT_PROMPTS, chat=True),
    "qwen3_vl": CaptionModel("Qwen3-VL", CHAT_PROMPTS, chat=True),
    "smolvlm": CaptionModel("SmolVLM2", CHAT_PROMPTS, chat=True),
}
"""The model types that work, as in the `model_type` of a config.json."""


def caption_model(config_path: Path, *, style: CaptionStyle) -> CaptionModel:
    """Return what is known of the model that a config.json describes.

    Raises:
        WeightsRejected: it is not a configuration, or no model of its type can be used.
        ConfigError: the model does not write captions of this style.
    """
    config = read_json(config_path)
    model_type = config.get("model_type") if isinstance(config, dict) else None
    known = MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    if known is None:
        raise unknown_type(config_path, config, cannot="cannot caption", known=MODEL_TYPES)
    if model_type == "florence2" and "auto_map" in config:
        raise WeightsRejected(
            f"{config_path} is of a Florence-2 that {NEEDS_CODE}.",
            path=config_path,
            hint="Take one in the layout of transformers: florence-community/Florence-2-large.",
        )
    if style not in known.prompts:
        able = ", ".join(name for name, other in MODEL_TYPES.items() if style in other.prompts)
        raise ConfigError(
            f"Models of the type {model_type} do not write captions in the style {style!r}.",
            hint=f"Remove caption_style from the blend config, or take a model of {able}.",
        )
    return known


def question(processor: Any, model: CaptionModel, *, style: CaptionStyle) -> str:
    """Return what the processor takes as text beside an image; "" if it takes none.

    Some chat templates take contents in parts, with the place of the image; others, such as
    JoyCaption's, take strings and add the image themselves.

    Raises:
        ValueError: the chat template is missing or wrong, or has no place for the image.
    """
    prompt = model.prompts[style]
    if not model.chat:
        return prompt
    if (template := processor.chat_template or processor.tokenizer.chat_template) is None:
        raise ValueError("it has no chat template")
    parts = [{"type": "image"}, {"type": "text", "text": prompt}]
    reason = ValueError("its chat template has no place for an image")
    # A template for strings would print the parts as Python does, so strings go first.
    for content in (prompt, parts, f"{processor.image_token}\n{prompt}"):
        try:
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=template if isinstance(template, str) else None,
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:  # noqa: BLE001 a foreign template may refuse this form
            reason = ValueError(first_line(error))
        else:
            if text.count(processor.image_token) == 1 and prompt in text:
                return str(text)
    raise reason


def first_sentence(answer: str) -> str:
    """Return the first line of an answer that holds text, without quotes around it."""
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
    for opening, closing in ('""', "''", "“”", "``"):
        inner = line[1:-1].strip()
        if len(line) > 1 and line[0] == opening and line[-1] == closing:
            return line if opening in inner or closing in inner else inner
    return line


def caption_of(answer: str) -> str:
    """Return `first_sentence` of an answer, "" if the model declines or apologizes."""
    said = first_sentence(answer)
    return "" if _APOLOGY.match(said.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) else said


def tell_declined(captions: Sequence[str], *, announce: Announce) -> None:
    """Say how many images of a batch have no caption, if any."""
    if declined := captions.count(""):
        announce(f"caption: the model declines to describe {declined} of {len(captions)} images.")
