"""The settings of a training, learning rates by layer and step, and the average of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from imprompt.core.errors import ConfigError
from imprompt.ensemble.vit.towers import Tower

if TYPE_CHECKING:
    from torch import Tensor

    _Tensors = tuple[Tensor, ...] | list[Tensor]


class VitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a tower is trained.

    For `head_epochs` of the `epochs` the head learns alone; then all layers do, the last one at the
    rate `learning_rate`, each one below at `layer_decay` times the rate of the one above (BEiT, Bao
    et al. 2021, arXiv:2106.08254, appendix). Rates rise for the first `warmup_share` of the steps,
    then fall to 0 along half a cosine. Training pictures are cropped to a random part of at least
    `crop_share` of their area and never flipped. One of `folds` parts, whole groups of similar
    texts, is held out to choose the best epoch. A kill costs at most `save_steps` steps.
    """

    epochs: int = 8
    head_epochs: int = 2
    batch_size: int = 32
    head_rate: float = 1e-3
    learning_rate: float = 1e-4
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    max_norm: float = 1.0
    average_decay: float = 0.999
    crop_share: float = 0.8
    folds: int = 10
    save_steps: int = 500
    seed: int = 0


def settings_for(
    *, epochs: int | None, batch_size: int | None, learning_rate: float | None
) -> VitSettings:
    """Return the settings, with defaults for None; the head learns alone for 1/4 of the epochs."""
    defaults = VitSettings()
    epochs = defaults.epochs if epochs is None else epochs
    return VitSettings(
        epochs=epochs,
        head_epochs=epochs // 4,
        batch_size=defaults.batch_size if batch_size is None else batch_size,
        learning_rate=defaults.learning_rate if learning_rate is None else learning_rate,
    )


def check_settings(settings: VitSettings) -> None:
    """Raise `ConfigError` unless all settings are in their ranges."""
    ranges = {
        "epochs": (1, 10_000),
        "head_epochs": (0, settings.epochs),
        "batch_size": (1, 65_536),
        "head_rate": (0, 10),
        "learning_rate": (0, 10),
        "layer_decay": (0, 1),
        "weight_decay": (0, 10),
        "warmup_share": (0, 1),
        "max_norm": (1e-6, 1e6),
        "average_decay": (0, 1),
        "crop_share": (0.01, 1),
        "folds": (2, 1000),
        "save_steps": (1, 10**9),
        "seed": (0, 2**31),
    }
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ConfigError(
                f"{name.replace('_', ' ')} is {value}; it must be from {low} to {high}."
            )


def layer_rate(layer: int, n_layers: int, settings: VitSettings) -> float:
    """Return the peak learning rate of a layer; layer 0 is nearest to the pixels."""
    return settings.learning_rate * settings.layer_decay ** (n_layers - 1 - layer)


def parameter_groups(tower: Tower, settings: VitSettings) -> list[dict[str, Any]]:
    """Return the optimizer's groups: one for each layer and kind of parameter, the head first.

    A group's `peak_rate` is its learning rate at the top of the schedule; `of_head` marks the
    head's. Vectors (biases, norms) get no weight decay.
    """
    n_layers = max(tower.layers.values(), default=-1) + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in tower.network.named_parameters():
        of_head = name in tower.head
        layer = n_layers if of_head else tower.layers[name]
        decays = parameter.ndim > 1
        empty = {
            "params": [],
            "lr": 0.0,
            "peak_rate": settings.head_rate if of_head else layer_rate(layer, n_layers, settings),
            "of_head": of_head,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        groups.setdefault((layer, decays), empty)["params"].append(parameter)
    return [groups[key] for key in sorted(groups, reverse=True)]


def rate_factor(step: int, steps: int, *, warmup_share: float) -> float:
    """Return the share of the peak rate at `step` (0 to steps - 1); 0 before the first step."""
    if step < 0 or steps < 1:
        return 0.0
    warmup = max(round(steps * warmup_share), 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup + 1) / (steps - warmup + 1)))


def set_rates(
    groups: Sequence[dict[str, Any]],
    step: int,
    *,
    head_steps: int,
    steps: int,
    settings: VitSettings,
) -> None:
    """Set each group's rate at `step` of `steps`.

    The layers below the head start at `head_steps`, with a warm-up of their own.
    """
    of_head = rate_factor(step, steps, warmup_share=settings.warmup_share)
    below = rate_factor(step - head_steps, steps - head_steps, warmup_share=settings.warmup_share)
    for group in groups:
        group["lr"] = group["peak_rate"] * (of_head if group["of_head"] else below)


def average_decay(n_averaged: int, limit: float) -> float:
    """Return the share of the average that is kept: small at first, `limit` in the end.

    The rule of TensorFlow's ExponentialMovingAverage.
    """
    return min(limit, (1 + n_averaged) / (10 + n_averaged))


def weight_average(network: Any, settings: VitSettings) -> Any:
    """Return a torch `AveragedModel` of the network: weights are averaged, buffers are copied."""
    import torch

    @torch.no_grad()
    def move(averaged: _Tensors, current: _Tensors, n_averaged: Tensor | int) -> None:
        share = 1 - average_decay(int(n_averaged), settings.average_decay)
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, share)

    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=move)
