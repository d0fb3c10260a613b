"""Which models of transformers can be encoders: those with both towers, or that embed both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprompt.core.errors import WeightsRejected
from imprompt.encoders.foreign import NEEDS_CODE, read_json
from imprompt.encoders.transformers_files import unknown_type

HINT = "Name a repository or folder with a model of transformers that embeds texts and images."
_ENGLISH_TOKENS = 50_000
"""Vocabularies for English are smaller: CLIP's has 49,408 tokens, SigLIP's 32,000."""


@dataclass(frozen=True, slots=True)
class EncoderType:
    """A model type of transformers.

    `models` are well-known models of the type, `languages` those that their texts were in. With
    `pads_texts`, the text tower was trained on texts that are padded to its full context, with
    `lower_case` on texts without capitals. With `pools_last_token`, a language model embeds a
    question in its chat template, and the vector is that of the last token.
    """

    models: str
    languages: str
    pads_texts: bool = False
    lower_case: bool = False
    pools_last_token: bool = False


ENCODER_TYPES = {
    "altclip": EncoderType("AltCLIP", "English and Chinese; 18 in AltCLIP-m18"),
    "chinese_clip": EncoderType("Chinese-CLIP", "Chinese"),
    "clip": EncoderType("CLIP of OpenAI, LAION, LongCLIP and others", "English"),
    "metaclip_2": EncoderType("MetaCLIP 2", "many"),
    "qwen3_vl": EncoderType("Qwen3-VL-Embedding", "many", pools_last_token=True),
    "siglip": EncoderType(
        "SigLIP, SigLIP 2",
        "English; many in SigLIP 2 and `-multilingual`",
        pads_texts=True,
        lower_case=True,
    ),
    "siglip2": EncoderType("SigLIP 2 NaFlex", "many", pads_texts=True, lower_case=True),
}
"""The model types that work, as in the `model_type` of a config.json."""


def encoder_type(config_path: Path) -> EncoderType:
    """Return what is known of the model that a config.json describes.

    Raises:
        WeightsRejected: it is not a configuration, or its model cannot be an encoder.
    """
    config = read_json(config_path)
    model_type = config.get("model_type") if isinstance(config, dict) else None
    known = ENCODER_TYPES.get(model_type) if isinstance(model_type, str) else None
    if known is None:
        raise unknown_type(
            config_path, config, cannot="is not an encoder of texts and images", known=ENCODER_TYPES
        )
    if (own := _class_of_the_repository(config)) is not None:
        raise WeightsRejected(
            f"{config_path} is of the class {own[:80]}, which {NEEDS_CODE}.",
            path=config_path,
            hint=HINT,
        )
    return known


def _class_of_the_repository(config: dict[str, Any]) -> str | None:
    """Return the model's class if it is one of those that the repository's code defines.

    FG-CLIP is one: its type is that of CLIP.
    """
    classes, own = config.get("architectures"), config.get("auto_map")
    if not isinstance(classes, list) or not isinstance(own, dict):
        return None
    defined = {path.rpartition(".")[2] for path in own.values() if isinstance(path, str)}
    return next((name for name in classes if isinstance(name, str) and name in defined), None)


def trained_on_english(config_path: Path) -> bool:
    """Return whether a config.json is of a type whose model with that vocabulary knows English."""
    config: Any = read_json(config_path)
    known = isinstance(config, dict) and config.get("model_type") in ("clip", "siglip")
    text = config.get("text_config") if known else None
    tokens = text.get("vocab_size") if isinstance(text, dict) else None
    return known and (not isinstance(tokens, int) or tokens < _ENGLISH_TOKENS)
