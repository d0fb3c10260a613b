"""The fields of an OFA checkpoint's `config.json` that the network needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from imprompt.core.errors import WeightsMissing, WeightsRejected

PAD, START, END = 1, 0, 2
"""Token ids: padding, start of a sentence (the prompt's and the answer's), end of a sentence."""

_Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

_FIXED = {
    "activation_function": "gelu",
    "add_type_embedding": True,
    "bos_token_id": START,
    "decoder_normalize_before": True,
    "decoder_start_token_id": START,
    "disable_entangle": False,
    "encoder_normalize_before": True,
    "entangle_position_embedding": False,
    "eos_token_id": END,
    "interpolate_position": False,
    "layernorm_embedding": True,
    "model_type": "ofa",
    "normformer": True,
    "pad_token_id": PAD,
    "patch_layernorm_embedding": True,
    "remove_decoder_type_embedding": False,
    "scale_embedding": False,
    "share_attn_bias": False,
    "share_decoder_input_output_embed": True,
    "use_gamma_feature": False,
    "use_image_feature": True,
    "use_ofasys": False,
}
"""Settings that have one value in every published caption checkpoint; no other is supported."""


class OfaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of one OFA network, named as in `config.json`.

    `max_position_embeddings` must hold the prompt and the answer, `image_bucket_size` the 30 x 30
    patches of an image.
    """

    vocab_size: _Size
    d_model: _Size
    encoder_layers: _Size
    decoder_layers: _Size
    encoder_ffn_dim: _Size
    decoder_ffn_dim: _Size
    encoder_attention_heads: _Size
    decoder_attention_heads: _Size
    resnet_type: Literal["resnet50", "resnet101", "resnet152"]
    max_position_embeddings: Annotated[int, msgspec.Meta(ge=32, le=65_536)] = 1024
    token_bucket_size: Annotated[int, msgspec.Meta(ge=4, le=65_536)] = 256
    image_bucket_size: Annotated[int, msgspec.Meta(ge=30, le=256)] = 42
    attn_scale_factor: Annotated[float, msgspec.Meta(gt=0)] = 2.0

    def __post_init__(self) -> None:
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads:
                raise ValueError(
                    f"d_model {self.d_model} is not a multiple of {heads} attention heads"
                )


def read_config(path: Path) -> OfaConfig:
    """Return the configuration in the JSON file `path`.

    Raises:
        WeightsMissing: the file cannot be read.
        WeightsRejected: it is not JSON, lacks a size, or asks for another kind of network.
    """
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        config = msgspec.convert(settings, OfaConfig)
    except OSError as error:
        raise WeightsMissing(
            f"{path} cannot be read: {error.strerror}.",
            path=path,
            hint="Name a folder that holds it.",
        ) from error
    except msgspec.MsgspecError as error:
        raise WeightsRejected(
            f"{path} is not the configuration of an OFA network: {error}.",
            path=path,
            hint="Fetch the file again.",
        ) from error
    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise WeightsRejected(
                f"{path} says {name} = {settings[name]!r}; only {value!r} is supported.",
                path=path,
                hint="Use OFA-Sys/ofa-large-caption.",
            )
    return config
