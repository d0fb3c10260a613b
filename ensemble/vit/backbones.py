"""Backbones that a training starts from: published, in a local file, or random on request."""

from __future__ import annotations

from pathlib import Path

from imprompt.core.errors import ConfigError, WeightsMissing
from imprompt.core.hub.fetch import Announce, fetch_choice
from imprompt.core.hub.hub_files import Wanted, wanted
from imprompt.encoders.checkpoints import read_tensors
from imprompt.encoders.weights import file_sha256
from imprompt.ensemble.vit.towers import Blueprint, Tower, build_tower, import_timm, timm_name
from imprompt.ensemble.vit.vit_checkpoint import fill_tower

FROM_SCRATCH = "random"
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def load_backbone(
    name: str,
    *,
    weights: Path | None,
    from_scratch: bool,
    seed: int,
    offline: bool,
    announce: Announce,
) -> tuple[Tower, str]:
    """Return a tower with a new head and pretrained layers, and the sha256 of their file.

    Args:
        name: an architecture of timm, or an encoder's name of open_clip (`ViT-L-14/openai`, a
            folder, ...); see docs/training.md.
        weights: a local file of the backbone; its head is kept if it has 384 rows.
        from_scratch: start from random weights (timm only); the digest is then "random".
        seed: of the random weights.
        offline: fetch nothing.
        announce: takes a line for the user.

    Raises:
        ConfigError: no such backbone, or options that exclude each other.
        MemberUnavailable, EncoderError: a package is not installed, or cannot build it.
        WeightsMissing, WeightsRejected: the weights cannot be found or fetched, or belong to
            another architecture.
    """
    if from_scratch and weights is not None:
        raise ConfigError(
            "Random weights and a file of weights exclude each other.",
            hint="Leave out --from-scratch or --weights.",
        )
    if not _is_timm(name):
        if from_scratch:
            raise ConfigError(
                f"{name} is not an architecture of timm; only those can start from random weights.",
                hint="Leave out --from-scratch.",
            )
        return _from_open_clip(name, weights=weights, seed=seed, offline=offline, announce=announce)
    tower = build_tower(Blueprint(library="timm", architecture=timm_name(name)), seed=seed)
    if from_scratch:
        return tower, FROM_SCRATCH
    if weights is None:
        (published,) = wanted_files(name)
        weights = fetch_choice(published.choices, offline=offline, announce=announce)
    _fill_body(tower, weights)
    return tower, file_sha256(weights)


def _is_timm(name: str) -> bool:
    if "/" in name or ":" in name or Path(name).is_dir():
        return False
    return bool(import_timm().is_model(name)) or not _is_open_clip(name)


def _is_open_clip(architecture: str) -> bool:
    from imprompt.encoders.openclip_tower import knows_architecture

    return knows_architecture(architecture)


def _from_open_clip(
    name: str, *, weights: Path | None, seed: int, offline: bool, announce: Announce
) -> tuple[Tower, str]:
    from imprompt.encoders.openclip_tower import load_image_tower

    pretrained, sha256 = load_image_tower(name, weights=weights, offline=offline, announce=announce)
    # A path of this machine must not get into a checkpoint.
    architecture = Path(name).name if Path(name).is_dir() else name.partition("//")[0]
    blueprint = Blueprint(
        library="open_clip",
        architecture=architecture,
        config=pretrained.config,
        preprocessing=pretrained.preprocess,
    )
    tower = build_tower(blueprint, seed=seed)
    tower.network.tower.load_state_dict(pretrained.network.state_dict())
    return tower, sha256


def wanted_files(name: str) -> list[Wanted]:
    """Return the files to fetch for an architecture of timm, from timm's own repository.

    Raises:
        WeightsMissing: timm publishes no weights of it.
    """
    config = import_timm().get_pretrained_cfg(name)
    repo = config.hf_hub_id if config is not None else None
    if not repo:
        raise WeightsMissing(
            f"timm publishes no weights of {name} on the hub.",
            path=name,
            hint="Name a file with --weights, or pass --from-scratch.",
        )
    return [wanted(repo, *_HUB_FILES)]


def _fill_body(tower: Tower, path: Path) -> None:
    """Give the tower the weights of a file, except a head of another number of classes."""
    tensors = dict(read_tensors(path))
    fresh = tower.network.state_dict()
    for name in tower.head:
        if name not in tensors or tensors[name].shape[0] != fresh[name].shape[0]:
            tensors[name] = fresh[name]
    fill_tower(tower, tensors, path=path)
