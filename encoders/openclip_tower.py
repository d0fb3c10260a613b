"""The image tower of an open_clip model without its text tower, to train and to rebuild."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprompt.core.errors import ConfigError, EncoderError, first_line
from imprompt.core.hub.fetch import Announce
from imprompt.encoders.foreign import built_openclip
from imprompt.encoders.openclip import load_openclip
from imprompt.encoders.openclip_source import import_open_clip

_NO_TEXT = {"context_length": 1, "vocab_size": 2, "width": 1, "heads": 1, "layers": 1}
"""The smallest text tower, because open_clip's public classes build both towers."""


@dataclass(frozen=True, slots=True)
class ImageTower:
    """An image tower: its network and its preprocessing.

    `network`, a torch module, maps (n, 3, height, width) pixels to (n, `dim`) rows, and `transform`
    maps an RGB image to pixels. `config` and `preprocess` are JSON values for `build_image_tower`.
    """

    network: Any
    dim: int
    transform: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]


def build_image_tower(config: Mapping[str, Any], preprocess: Mapping[str, Any]) -> ImageTower:
    """Return a tower with random weights, from a configuration and fields of a PreprocessCfg.

    Raises:
        EncoderError: open_clip is not installed, or cannot build it.
    """
    open_clip = import_open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    try:
        vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
        quick_gelu = bool(config.get("quick_gelu", False))
        parts = {"embed_dim": config["embed_dim"], "vision_cfg": vision, "text_cfg": dict(_NO_TEXT)}
        model = built_openclip(open_clip.CLIP, parts, quick_gelu=quick_gelu)
        network = model.visual
        size = network.image_size
        if not isinstance(size, int):
            size = list(size)
        fields = {**merge_preprocess_dict(PreprocessCfg(), dict(preprocess)), "size": size}
        transform = image_transform_v2(PreprocessCfg(**fields), is_train=False)
    except Exception as error:  # open_clip and timm raise errors of many kinds
        raise EncoderError(
            f"open_clip cannot build this image tower: {first_line(error)}.",
            hint="A newer open_clip_torch may know it.",
        ) from error
    record = {"embed_dim": config["embed_dim"], "quick_gelu": quick_gelu, "vision_cfg": vision}
    return ImageTower(network, config["embed_dim"], transform, record, fields)


def load_image_tower(
    name: str, *, weights: Path | None, offline: bool, announce: Announce
) -> tuple[ImageTower, str]:
    """Return a model's image tower on the CPU in float32, and the sha256 of its weight file.

    Args:
        name: see `imprompt.encoders.registry.load_encoder`; with `weights`, an architecture's name
            is enough.
        weights: a local weight file.
        offline: fetch nothing.
        announce: takes a line for the user.

    Raises:
        ConfigError, EncoderError, WeightsMissing, WeightsRejected: see
            `imprompt.encoders.openclip.load_openclip`.
    """
    if "/" not in name and ":" not in name and not Path(name).is_dir():
        if weights is None:
            raise ConfigError(
                f"{name} names no weights.",
                hint=f"Name {name}/PRETRAINED, or a file with --weights.",
            )
        name, weights = f"{name}//{weights.absolute()}", None
    encoder = load_openclip(name, device="cpu", offline=offline, announce=announce, weights=weights)
    preprocess = json.loads(encoder.spec.preprocessing)
    preprocess.pop("tokenizer")
    tower = build_image_tower(encoder.model.source.config, preprocess)
    tower.network.load_state_dict(encoder.model.network.visual.state_dict())
    return tower, encoder.spec.weights_sha256["model"]


def knows_architecture(name: str) -> bool:
    """Return whether open_clip has an architecture of that name; False if it is not installed."""
    try:
        return import_open_clip().get_model_config(name) is not None
    except EncoderError:
        return False
