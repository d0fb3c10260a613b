"""The tiny network, built once; no test changes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from imprompt.ensemble.ofa.network import Ofa
from imprompt.ensemble.ofa.ofa_checkpoint import fill
from tests.ensemble.ofa.builders import EARLY, LATE, TINY_CONFIG, shapes_of, weights

Tiny = Callable[[float], Ofa]


@pytest.fixture(scope="session")
def tiny_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tiny network's parameters."""
    with torch.device("meta"):
        return shapes_of(Ofa(TINY_CONFIG).state_dict())


@pytest.fixture(scope="session")
def tiny_tensors(tiny_shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tiny network's weights, as a checkpoint names them. Not to be changed in place."""
    return weights(tiny_shapes, pull=LATE)


@pytest.fixture(scope="session")
def tiny(tiny_shapes: dict[str, tuple[int, ...]]) -> Tiny:
    """The tiny network for one strength of the pull to the end, kept once it is made."""
    made: dict[float, Ofa] = {}
    for pull in (LATE, EARLY):
        with torch.device("meta"):
            made[pull] = Ofa(TINY_CONFIG)
        fill(made[pull], weights(tiny_shapes, pull=pull), config=TINY_CONFIG, path=Path("tiny"))
    return made.__getitem__
