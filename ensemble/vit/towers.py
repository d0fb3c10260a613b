"""An image tower with a head of 384 numbers: built from a blueprint, its layers counted from the pixels to the head."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable, first_line
from imprompt.encoders.foreign import built_timm

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

DIM = 384
LONGEST_SIDES = 16
"""The centre of a picture that is longer than this many of its short sides is taken: its short side is enlarged to the tower's."""

INSTALL = "Install it: pip install 'imprompt[vit]'"

_SideCount = Annotated[int, msgspec.Meta(ge=1, le=4096)]
_Three = tuple[float, float, float]
_OPEN_CLIP_LAYERS = {
    "stem": r"^(?:class_embedding|positional_embedding|conv\d|bn\d|ln_pre)",
    "blocks": r"^(?:transformer\.resblocks\.|layer)(\d+)",
}
"""timm's way to say which parameters belong to which layer, for open_clip's own ViT and ResNet; the rest is the last layer."""


class TimmPixels(msgspec.Struct, frozen=True, kw_only=True):
    """How timm turns a picture into pixels: the shorter side to `input_size / crop_pct`, the centre, then mean and deviation."""

    input_size: tuple[_SideCount, _SideCount, _SideCount]
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest", "hamming"] = "bicubic"
    mean: _Three = (0.485, 0.456, 0.406)
    std: _Three = (0.229, 0.224, 0.225)
    crop_pct: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    crop_mode: Literal["center", "squash", "border"] = "center"


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a tower is built from, as a checkpoint records it.

    `config` are arguments of timm's model, or open_clip's configuration of the model;
    `preprocessing` the fields of `TimmPixels`, or those of open_clip's PreprocessCfg. An empty
    `preprocessing` is that of the published weights of the architecture.
    """

    library: Literal["timm", "open_clip"]
    architecture: str
    config: dict[str, Any] = {}
    preprocessing: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Tower:
    """`network`, a torch module, maps (n, 3, height, width) pixels to (n, 384) rows; `transform` an RGB picture to its pixels.

    `head` names the parameters of the head, `layers` gives every other parameter its layer: 0 is
    nearest to the pixels.
    """

    blueprint: Blueprint
    network: Any
    transform: Callable[[Image], Tensor]
    head: frozenset[str]
    layers: dict[str, int]


def build_tower(blueprint: Blueprint, *, seed: int = 0) -> Tower:
    """The tower with random weights; the same for the same seed.

    Raises:
        ConfigError: no such architecture.
        MemberUnavailable: timm is not installed.
        EncoderError: the library cannot build it, or it has no head of its own.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (
            _timm_tower(blueprint) if blueprint.library == "timm" else _open_clip_tower(blueprint)
        )


def import_timm() -> Any:
    """The library, untyped as most of it is.

    Raises:
        MemberUnavailable: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise MemberUnavailable(
            "vit", f"the package {error.name or 'timm'} is not installed", hint=INSTALL
        ) from error
    return timm


def timm_name(architecture: str) -> str:
    """The name, where timm knows it, with or without a tag (`vit_base_patch16_224.augreg_in21k`).

    Raises:
        ConfigError: it does not; names like it are said.
        MemberUnavailable: timm is not installed.
    """
    timm = import_timm()
    if ":" in architecture or "/" in architecture or not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        hint = (
            f"Names like it: {', '.join(near)}."
            if near
            else "Names look like vit_base_patch16_224, convnext_base."
        )
        raise ConfigError(f"timm has no architecture {architecture!r}.", hint=hint)
    return architecture


def _timm_tower(blueprint: Blueprint) -> Tower:
    timm = import_timm()
    name = timm_name(blueprint.architecture)
    try:
        network = built_timm(name, num_classes=DIM, **blueprint.config)
        layers = timm.models.group_parameters(
            network, network.group_matcher(coarse=False), reverse=True
        )
        classifier = network.get_classifier()
    except Exception as error:  # timm's models raise what they like for arguments they do not take
        raise EncoderError(
            f"timm cannot build {name}: {first_line(error)}.",
            hint="Another version of timm may know it.",
        ) from error
    heads = (
        {id(parameter) for parameter in classifier.parameters()}
        if hasattr(classifier, "parameters")
        else set()
    )
    head = frozenset(
        name for name, parameter in network.named_parameters() if id(parameter) in heads
    )
    if not head:
        raise EncoderError(
            f"{name} has no single linear head.", hint="Choose another architecture."
        )
    own = {
        key: value
        for key, value in timm.data.resolve_model_data_config(network).items()
        if key in TimmPixels.__struct_fields__
    }
    pixels = _convert(blueprint.preprocessing or own)
    filled = msgspec.structs.replace(blueprint, preprocessing=msgspec.to_builtins(pixels))
    transform = timm.data.create_transform(**msgspec.structs.asdict(pixels), is_training=False)
    return Tower(filled, network, _bounded(transform), head, _ranked(layers, head))


def _convert(preprocessing: Mapping[str, Any]) -> TimmPixels:
    try:
        return msgspec.convert(preprocessing, TimmPixels)
    except msgspec.ValidationError as error:
        raise EncoderError(
            f"pictures cannot be prepared as the checkpoint says: {error}."
        ) from error


def _open_clip_tower(blueprint: Blueprint) -> Tower:
    import torch

    from imprompt.encoders.openclip_tower import build_image_tower

    tower = build_image_tower(blueprint.config, blueprint.preprocessing)
    network = torch.nn.Sequential()
    network.add_module("tower", tower.network)
    network.add_module("head", torch.nn.Linear(tower.dim, DIM))
    filled = msgspec.structs.replace(blueprint, config=tower.config, preprocessing=tower.preprocess)
    head = frozenset({"head.weight", "head.bias"})
    layers = {f"tower.{name}": layer for name, layer in _open_clip_layers(tower.network).items()}
    return Tower(filled, network, _bounded(tower.transform), head, _ranked(layers, head))


def _bounded(transform: Callable[[Image], Tensor]) -> Callable[[Image], Tensor]:
    def bounded(picture: Image) -> Tensor:
        width, height = picture.size
        longest = min(width, height) * LONGEST_SIDES
        left, upper = max(width - longest, 0) // 2, max(height - longest, 0) // 2
        if left or upper:
            picture = picture.crop((left, upper, width - left, height - upper))
        return transform(picture)

    return bounded


def _open_clip_layers(tower: Any) -> dict[str, int]:
    group_parameters = import_timm().models.group_parameters
    trunk = getattr(tower, "trunk", None)
    if trunk is None:
        found: dict[str, int] = group_parameters(tower, _OPEN_CLIP_LAYERS, reverse=True)
        return found
    inner = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)
    last = max(inner.values()) + 1
    return {
        name: inner.get(name.removeprefix("trunk."), last) for name, _ in tower.named_parameters()
    }


def _ranked(layers: Mapping[str, int], head: frozenset[str]) -> dict[str, int]:
    """The layers of all parameters but the head's, numbered from 0 without a gap."""
    body = {name: layer for name, layer in layers.items() if name not in head}
    rank = {layer: place for place, layer in enumerate(sorted(set(body.values())))}
    return {name: rank[layer] for name, layer in body.items()}
