"""Image towers with a head of 384 outputs, built from a blueprint."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable, first_line
from imprompt.core.pip_lines import install_extra
from imprompt.encoders.foreign import built_timm

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

DIM = 384
LONGEST_SIDES = 16
"""Longer pictures are cropped to this many short sides: the short side is enlarged a lot."""

_SideCount = Annotated[int, msgspec.Meta(ge=1, le=4096)]
_Three = tuple[float, float, float]
_OPEN_CLIP_LAYERS = {
    "stem": r"^(?:class_embedding|positional_embedding|conv\d|bn\d|ln_pre)",
    "blocks": r"^(?:transformer\.resblocks\.|layer)(\d+)",
}
"""The layers of open_clip's ViT and ResNet, as patterns of timm; all else is the last layer."""


class TimmPixels(msgspec.Struct, frozen=True, kw_only=True):
    """How timm turns a picture into pixels.

    The shorter side is resized to `input_size / crop_pct`, the centre is cropped and normalized.
    """

    input_size: tuple[_SideCount, _SideCount, _SideCount]
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest", "hamming"] = "bicubic"
    mean: _Three = (0.485, 0.456, 0.406)
    std: _Three = (0.229, 0.224, 0.225)
    crop_pct: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    crop_mode: Literal["center", "squash", "border"] = "center"


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    """A tower's architecture and preprocessing, as a checkpoint records them.

    `config` holds the arguments of timm's model, or open_clip's configuration of the model;
    `preprocessing` the fields of `TimmPixels`, or those of open_clip's PreprocessCfg. If empty, it
    is that of the architecture's published weights.
    """

    library: Literal["timm", "open_clip"]
    architecture: str
    config: dict[str, Any] = {}
    preprocessing: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Tower:
    """An image tower that can be trained layer by layer.

    `network`, a torch module, maps (n, 3, height, width) pixels to (n, 384) rows; `transform` an
    RGB picture to its pixels. `head` names the parameters of the head, `layers` gives every other
    parameter its layer: 0 is nearest to the pixels.
    """

    blueprint: Blueprint
    network: Any
    transform: Callable[[Image], Tensor]
    head: frozenset[str]
    layers: dict[str, int]


def build_tower(blueprint: Blueprint, *, seed: int = 0) -> Tower:
    """Return the tower with random weights, which depend on the seed.

    Raises:
        ConfigError: no such architecture.
        MemberUnavailable: timm is not installed.
        EncoderError: the library cannot build it, or it has no single head.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (
            _timm_tower(blueprint) if blueprint.library == "timm" else _open_clip_tower(blueprint)
        )


def import_timm() -> Any:
    """Return the library, as Any because most of it is untyped.

    Raises:
        MemberUnavailable: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise MemberUnavailable(
            "vit",
            f"the package {error.name or 'timm'} is not installed",
            hint=f"Install it: {install_extra('vit')}",
        ) from error
    return timm


def timm_name(architecture: str) -> str:
    """Return the name if timm knows it; it may have a tag (`vit_base_patch16_224.augreg_in21k`).

    Raises:
        ConfigError: timm does not know it; the hint lists similar names.
        MemberUnavailable: timm is not installed.
    """
    timm = import_timm()
    if ":" in architecture or "/" in architecture or not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        hint = (
            f"Similar names: {', '.join(near)}."
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
    except Exception as error:  # timm's models raise any type for a wrong argument
        raise EncoderError(
            f"timm cannot build {name}: {first_line(error)}.", hint="Try another version of timm."
        ) from error
    # Some architectures have no classifier, or one without parameters.
    parameters: Iterable[Any] = getattr(classifier, "parameters", tuple)()
    head_ids = {id(parameter) for parameter in parameters}
    head = frozenset(
        name for name, parameter in network.named_parameters() if id(parameter) in head_ids
    )
    if not head:
        raise EncoderError(
            f"{name} has no single linear head.", hint="Choose another architecture."
        )
    pixels = _convert(
        blueprint.preprocessing
        or {
            key: value
            for key, value in timm.data.resolve_model_data_config(network).items()
            if key in TimmPixels.__struct_fields__
        }
    )
    filled = msgspec.structs.replace(blueprint, preprocessing=msgspec.to_builtins(pixels))
    transform = timm.data.create_transform(**msgspec.structs.asdict(pixels), is_training=False)
    return Tower(filled, network, _bounded(transform), head, _ranked(layers, head))


def _convert(preprocessing: Mapping[str, Any]) -> TimmPixels:
    try:
        return msgspec.convert(preprocessing, TimmPixels)
    except msgspec.ValidationError as error:
        raise EncoderError(f"the checkpoint's preprocessing is not supported: {error}.") from error


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
    """Return the transform, with the ends of a very long picture cropped first."""

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
        layers: dict[str, int] = group_parameters(tower, _OPEN_CLIP_LAYERS, reverse=True)
        return layers
    inner = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)
    last = max(inner.values()) + 1
    return {
        name: inner.get(name.removeprefix("trunk."), last) for name, _ in tower.named_parameters()
    }


def _ranked(layers: Mapping[str, int], head: frozenset[str]) -> dict[str, int]:
    """Return the layers of all parameters except the head's, numbered from 0 without gaps."""
    body = {name: layer for name, layer in layers.items() if name not in head}
    rank = {layer: number for number, layer in enumerate(sorted(set(body.values())))}
    return {name: rank[layer] for name, layer in body.items()}
