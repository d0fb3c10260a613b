"""Trained towers on disk: our self-describing safetensors, or files of timm and the notebook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import (
    ConfigError,
    EncoderError,
    FormatVersion,
    WeightsMissing,
    WeightsRejected,
)
from imprompt.core.weight_names import split_weights
from imprompt.encoders.checkpoints import load_checked, read_tensors
from imprompt.encoders.foreign import check_tower
from imprompt.ensemble.vit.towers import DIM, Blueprint, TimmPixels, Tower, build_tower, timm_name

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = (1, 0)
_METADATA = "imprompt_vit"
_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_REMEDY = (
    "Name a file of `train --backbone`, a folder of timm, or ARCH//FILE "
    "(vit_base_patch16_224//vit.pth)."
)
NOTEBOOK_PIXELS = {
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
"""The founding notebook's preprocessing: shorter side to the tower's, normalized as ImageNet."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A file's own description: its tower, the origin of its backbone, and its training."""

    format: tuple[int, int]
    blueprint: Blueprint
    backbone: str
    backbone_sha256: str
    training: dict[str, Any]


class _Folder(msgspec.Struct, frozen=True):
    architecture: str
    num_classes: int = 0
    model_args: dict[str, Any] = {}
    pretrained_cfg: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Trained:
    """A tower with its trained weights, in evaluation mode on the CPU, and the files it is from."""

    tower: Tower
    files: tuple[Path, ...]
    facts: Facts | None


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Write our kind of file, atomically; equal towers and facts give equal bytes.

    Raises:
        StorageFull: the disk is full or read-only.
    """
    from safetensors.torch import save

    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: safetensors writes several in any order.
    metadata = {_METADATA: msgspec.json.encode(facts, order="sorted").decode()}
    with atomic_write(path) as file:
        file.write(save(held, metadata=metadata))


def read_checkpoint(source: str) -> Trained:
    """Return the tower of a file of `train`, a folder of timm's `save_for_hf`, or ARCH//FILE.

    ARCH//FILE is a state dict of timm's `create_model(ARCH, num_classes=384)`, as safetensors or
    saved by torch; pictures are preprocessed as in the founding notebook, without its random flips.

    Raises:
        WeightsMissing: a file is missing.
        WeightsRejected: it is damaged, holds code, or its tensors have other names or shapes than
            the architecture's.
        FormatVersion: its format is newer.
        ConfigError: no such architecture, or a file that does not state its own.
        MemberUnavailable, EncoderError: a package is not installed, or cannot build the tower.
    """
    path = source_path(source)
    if path.is_dir():
        return _from_folder(path)
    split = None if Path(source).expanduser().is_file() else split_weights(source)
    architecture = split[0] if split else ""
    if not architecture:
        return _from_own_file(path)
    blueprint = Blueprint(library="timm", architecture=timm_name(architecture))
    side = build_tower(blueprint).blueprint.preprocessing["input_size"]
    blueprint = msgspec.structs.replace(
        blueprint, preprocessing={"input_size": side, **NOTEBOOK_PIXELS}
    )
    return Trained(_filled(blueprint, path), (path,), None)


def source_path(source: str) -> Path:
    """Return the file or folder of a source of `read_checkpoint`; it need not exist."""
    path = Path(source).expanduser()
    split = None if path.exists() else split_weights(source)
    return split[1] if split else path


def read_facts(path: Path) -> Facts | None:
    """Return a file's own description, or None for a file that is not ours.

    Raises:
        WeightsRejected: it is damaged.
        FormatVersion: its format is newer.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_METADATA)
        if text is None:
            return None
        major, minor = json.loads(text)["format"]
        if major > FORMAT[0]:
            raise FormatVersion(
                f"{path} has format {major}.{minor}; this version reads up to {FORMAT[0]}.x.",
                hint="Update imprompt.",
            )
        return msgspec.json.decode(text, type=Facts)
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        msgspec.MsgspecError,
    ) as error:
        raise WeightsRejected(
            f"{path} cannot be read as a trained tower: {error}.", path=path, hint=_REMEDY
        ) from error


def fill_tower(tower: Tower, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    """Give a tower its weights.

    Raises:
        WeightsRejected: names or shapes differ; the message lists them.
    """
    architecture = f"{tower.blueprint.architecture} with {DIM} outputs"
    load_checked(tower.network, tensors, architecture=architecture, path=path)


def _from_own_file(path: Path) -> Trained:
    if not path.is_file():
        raise WeightsMissing(f"{path} does not exist.", path=path, hint=_REMEDY)
    facts = read_facts(path)
    if facts is None:
        raise ConfigError(f"{path} does not state its architecture.", hint=f"Write ARCH//{path}.")
    return Trained(_filled(facts.blueprint, path), (path,), facts)


def _from_folder(folder: Path) -> Trained:
    config = folder / "config.json"
    try:
        held = msgspec.json.decode(config.read_bytes(), type=_Folder)
    except OSError as error:
        raise WeightsMissing(
            f"{config} cannot be read: {error.strerror}.", path=config, hint=_REMEDY
        ) from error
    except msgspec.MsgspecError as error:
        raise WeightsRejected(
            f"{config} is not a configuration of timm: {error}.", path=config, hint=_REMEDY
        ) from error
    path = next((folder / name for name in _FOLDER_FILES if (folder / name).is_file()), None)
    if path is None:
        raise WeightsMissing(
            f"{folder} holds none of {', '.join(_FOLDER_FILES)}.", path=folder, hint=_REMEDY
        )
    if held.num_classes != DIM:
        raise WeightsRejected(
            f"{folder} holds a {held.architecture} with {held.num_classes} outputs, not {DIM}.",
            path=folder,
            hint=_REMEDY,
        )
    pixels = {
        name: value
        for name, value in held.pretrained_cfg.items()
        if name in TimmPixels.__struct_fields__
    }
    arguments = {name: value for name, value in held.model_args.items() if name != "num_classes"}
    blueprint = Blueprint(
        library="timm", architecture=held.architecture, config=arguments, preprocessing=pixels
    )
    return Trained(_filled(blueprint, path), (config, path), None)


def _filled(blueprint: Blueprint, path: Path) -> Tower:
    """Return the tower of a blueprint with the weights of a file, tested on one picture."""
    import torch
    from PIL import Image

    tensors = read_tensors(path)
    check_tower(blueprint.config, path=path, weights_bytes=path.stat().st_size)
    tower = build_tower(blueprint)
    fill_tower(tower, tensors, path=path)
    tower.network.eval().requires_grad_(requires_grad=False)
    try:
        with torch.inference_mode():
            shape = tuple(tower.network(tower.transform(Image.new("RGB", (64, 48)))[None]).shape)
    except Exception as error:  # networks raise any type for an unsupported input size
        raise WeightsRejected(
            f"{path} cannot run at its stated input size: {error}.", path=path, hint=_REMEDY
        ) from error
    if shape != (1, DIM):
        raise EncoderError(
            f"{blueprint.architecture} returns rows of shape {shape[1:]}, not ({DIM},)."
        )
    return tower
