"""Where a training begins: a published backbone, one in a local file, or random weights on request."""

from __future__ import annotations

from pathlib import Path

from imprompt.core.errors import ConfigError, WeightsMissing
from imprompt.core.hub.fetch import Announce, Wanted, fetch_choice, wanted
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
    """A tower whose head is new and whose other layers are pretrained, and the sha256 of the file they came from.

    Args:
        name: an architecture of timm, or an encoder's name of open_clip (`ViT-L-14/openai`, a
            folder, ...); see docs/training.md.
        weights: a local file of the backbone; one whose head has 384 rows keeps it.
        from_scratch: begin with random weights; the digest is "random" then. For timm only.
        seed: of everything that is random.
        offline: fetch nothing.
        announce: takes a line for the user.

    Raises:
        ConfigError: no such backbone, or options that exclude each other.
        MemberUnavailable, EncoderError: a package is not installed, or cannot build it.
        WeightsMissing, WeightsRejected: the weights are neither here nor to be had, or of another
            architecture.
    """
    if from_scratch and weights is not None:
        raise ConfigError(
            "Random weights and a file of weights exclude each other.",
            hint="Leave out --from-scratch or --weights.",
        )
    if not _is_timm(name):
        if from_scratch:
            raise ConfigError(
                f"{name} is no architecture of timm; only those begin at random.",
                hint="Leave out --from-scratch.",
            )
        return _from_open_clip(name, weights=weights, seed=seed, offline=offline, announce=announce)
    tower = build_tower(Blueprint(library="timm", architecture=timm_name(name)), seed=seed)
    if from_scratch:
        return tower, FROM_SCRATCH
    path = weights or _published(name, offline=offline, announce=announce)
    _fill_body(tower, path)
    return tower, file_sha256(path)


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
    said = (
        Path(name).name if Path(name).is_dir() else name.partition("//")[0]
    )  # no path of this machine goes into a checkpoint
    plan = Blueprint(
        library="open_clip",
        architecture=said,
        config=pretrained.config,
        preprocessing=pretrained.preprocess,
    )
    tower = build_tower(plan, seed=seed)
    tower.network.tower.load_state_dict(pretrained.network.state_dict())
    return tower, sha256


def wanted_files(name: str) -> list[Wanted]:
    """What the hub has to give for an architecture of timm: the file of timm's own repository.

    Raises:
        WeightsMissing: there is none.
    """
    config = import_timm().get_pretrained_cfg(name)
    repo = config.hf_hub_id if config is not None else None
    if not repo:
        raise WeightsMissing(
            f"timm publishes no weights of {name} on the hub.",
            path=name,
            hint="Name a file with --weights, or say --from-scratch.",
        )
    return [wanted(repo, *_HUB_FILES)]


def _published(name: str, *, offline: bool, announce: Announce) -> Path:
    (want,) = wanted_files(name)
    return fetch_choice(want.choices, offline=offline, announce=announce)


def _fill_body(tower: Tower, path: Path) -> None:
    """Give the tower the weights of a file, but for a head of another number of classes, which stays new."""
    tensors = dict(read_tensors(path))
    fresh = tower.network.state_dict()
    for name in tower.head:
        if name not in tensors or tensors[name].shape[0] != fresh[name].shape[0]:
            tensors[name] = fresh[name]
    fill_tower(tower, tensors, path=path)
