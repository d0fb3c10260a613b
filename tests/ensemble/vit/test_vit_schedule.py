"""Learning rates by layer and step, and the average of weights, against computations by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imprompt.core.errors import ConfigError
from imprompt.ensemble.training.vit_schedule import (
    VitSettings,
    average_decay,
    check_settings,
    parameter_groups,
    rate_factor,
    set_rates,
    settings_for,
    weight_average,
)
from imprompt.ensemble.vit.towers import Blueprint, Tower, build_tower

SETTINGS = VitSettings(head_rate=0.5, learning_rate=0.1, layer_decay=0.5, weight_decay=0.03)


@pytest.fixture(scope="module")
def tower() -> Tower:
    """timm's ViT for tests: six blocks."""
    return build_tower(Blueprint(library="timm", architecture="test_vit"))


def rates(tower: Tower) -> dict[str, tuple[float, float]]:
    """(peak rate, weight decay) of each parameter by its name."""
    names = {id(parameter): name for name, parameter in tower.network.named_parameters()}
    groups = parameter_groups(tower, SETTINGS)
    found = {
        names[id(parameter)]: (group["peak_rate"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    return found


def test_every_layer_learns_half_as_fast_as_the_one_above(tower: Tower) -> None:
    """Seven layers: patches and six blocks, the last norm with the sixth; vectors do not decay."""
    found = rates(tower)
    assert found["head.weight"] == (0.5, 0.03)
    assert found["head.bias"] == (0.5, 0.0)
    assert found["norm.weight"] == (0.1, 0.0)
    for block in range(6):
        assert found[f"blocks.{block}.attn.qkv.weight"] == (0.1 * 0.5 ** (5 - block), 0.03)
        assert found[f"blocks.{block}.attn.qkv.bias"] == (0.1 * 0.5 ** (5 - block), 0.0)
    assert found["patch_embed.proj.weight"] == (0.1 * 0.5**6, 0.03)
    assert found["pos_embed"] == (0.1 * 0.5**6, 0.03)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_convolutional_towers_have_layers_too(architecture: str) -> None:
    """The stem is the slowest, the last stage has the full rate, and no layer is skipped."""
    tower = build_tower(Blueprint(library="timm", architecture=architecture))
    names = [name for name, _ in tower.network.named_parameters()]
    assert tower.head == {
        name for name in names if tower.network.get_parameter(name).shape[0] == 384
    }
    assert tower.layers[names[0]] == 0
    assert set(tower.layers.values()) == set(range(max(tower.layers.values()) + 1))
    assert max(tower.layers.values()) >= 4


def test_rates_rise_then_fall_along_a_cosine() -> None:
    """Ten steps with a warm-up of two; before the first step there is no rate."""
    factors = [rate_factor(step, 10, warmup_share=0.2) for step in range(10)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2:] == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * i / 9)) for i in range(1, 9)]
    )
    assert rate_factor(-1, 10, warmup_share=0.2) == 0


@given(st.integers(1, 400), st.floats(0, 1), st.data())
def test_rates_stay_between_nothing_and_the_peak(
    steps: int, warmup_share: float, data: st.DataObject
) -> None:
    """Whatever the length of the training, and never 0 within it."""
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < rate_factor(step, steps, warmup_share=warmup_share) <= 1


def test_the_layers_below_begin_when_the_head_is_ready(tower: Tower) -> None:
    """While the head learns alone they have no rate; then they warm up on their own."""
    groups = parameter_groups(tower, SETTINGS)
    for step in range(10):
        set_rates(groups, step, head_steps=4, steps=10, settings=SETTINGS)
        head = next(group for group in groups if group["of_head"])
        below = next(group for group in groups if not group["of_head"])
        assert head["lr"] == pytest.approx(0.5 * rate_factor(step, 10, warmup_share=0.1))
        assert below["lr"] == pytest.approx(0.1 * rate_factor(step - 4, 6, warmup_share=0.1))
        assert (below["lr"] == 0) == (step < 4)


def test_the_average_is_what_a_sum_by_hand_gives() -> None:
    """Each step keeps min(limit, (1 + n) / (10 + n)) of the average; buffers are copied."""
    network = torch.nn.BatchNorm1d(1)
    average = weight_average(network, VitSettings(average_decay=0.3))
    by_hand = None
    for n, value in enumerate([2.0, -1.0, 5.0, 0.5, 7.0]):
        network.weight.data.fill_(value)
        assert network.running_mean is not None
        network.running_mean.fill_(value * 10)
        average.update_parameters(network)
        keep = min(0.3, (1 + n) / (10 + n))
        by_hand = value if by_hand is None else keep * by_hand + (1 - keep) * value
        assert average.module.weight.item() == pytest.approx(by_hand)
        assert average.module.running_mean.item() == value * 10
    assert [average_decay(n, 0.3) for n in (0, 1, 2, 3, 100)] == pytest.approx(
        [0.1, 2 / 11, 0.25, 0.3, 0.3]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"head_epochs": 9},
        {"crop_share": 0.0},
        {"layer_decay": 1.5},
        {"batch_size": 0},
    ],
)
def test_a_setting_out_of_its_range_is_named(wrong: dict[str, Any]) -> None:
    """With its value and its limits."""
    with pytest.raises(
        ConfigError, match=rf"{next(iter(wrong)).replace('_', ' ')} is .*; it must be from"
    ):
        check_settings(VitSettings(**wrong))


def test_the_head_learns_alone_for_a_quarter_of_the_epochs() -> None:
    """Of as many as were asked for; what was not asked for is as usual."""
    assert settings_for(epochs=None, batch_size=None, learning_rate=None) == VitSettings()
    chosen = settings_for(epochs=12, batch_size=4, learning_rate=0.25)
    assert (chosen.head_epochs, chosen.batch_size, chosen.learning_rate) == (3, 4, 0.25)
    check_settings(settings_for(epochs=1, batch_size=None, learning_rate=None))
