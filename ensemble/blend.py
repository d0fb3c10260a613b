"""The blend: the weighted mean of the members' unit vectors, scaled to length 1.

Scaling to unit length before averaging is worth +0.004 on the competition's public leaderboard
(36th place's write-up).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from imprompt.core.errors import ConfigError
from imprompt.core.values import Vectors, unit_rows

_SHORTEST_MEAN = 1e-6


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise `ConfigError` unless all weights are finite, at least 0, and one is above 0."""
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(
                f"The weight of {name} is {weight}; it must be a number of at least 0."
            )
    if not 0 < sum(weights.values()) < math.inf:
        names = ", ".join(weights) or "no member"
        raise ConfigError(
            f"The weights of {names} add up to {sum(weights.values())}.",
            hint="At least one member needs a weight above 0.",
        )


def shares(weights: Mapping[str, float], *, without: Collection[str] = ()) -> dict[str, float]:
    """Return each weighted member's share, those in `without` left out; shares sum to 1.

    Raises:
        ConfigError: a weight is negative or not finite, or no member is left.
    """
    check_weights(weights)
    left = {name: weight for name, weight in weights.items() if weight > 0 and name not in without}
    if not left:
        raise ConfigError(f"None of the members {', '.join(weights)} is available.")
    largest = max(left.values())  # divide first: tiny or huge weights would leave float's range
    total = math.fsum(weight / largest for weight in left.values())
    return {name: weight / largest / total for name, weight in left.items()}


def blend(contributions: Mapping[str, Vectors], weights: Mapping[str, float]) -> Vectors:
    """Return (n, 384) unit rows: the weighted means of the members' rows, each scaled to length 1.

    A row of zeros has no direction and does not count. Where the rows cancel each other out, the
    row of the member with the largest weight is taken.

    Args:
        contributions: (n, 384) rows by member.
        weights: by member; only their ratios count. A member of weight 0 need not contribute.

    Raises:
        ConfigError: a weight is negative or not finite, none is above 0, or a weighted member
            contributes nothing.
        EncoderError: a value is not finite.
        ValueError: the shapes differ.
    """
    share = shares(weights)
    if missing := [name for name in share if name not in contributions]:
        raise ConfigError(f"{', '.join(missing)} made no prediction.")
    # In float64 and sorted by name, so that the order of the members does not change a bit.
    rows = {
        name: unit_rows(contributions[name], role=f"the member {name}").astype(np.float64)
        for name in sorted(share)
    }
    if len({row.shape for row in rows.values()}) != 1:
        shapes = ", ".join(f"{name} {row.shape}" for name, row in rows.items())
        raise ValueError(f"the contributions' shapes differ: {shapes}")
    mean = np.sum([share[name] * row for name, row in rows.items()], axis=0)
    heaviest = rows[max(rows, key=lambda name: share[name])]
    cancelled = np.linalg.norm(mean, axis=1) < _SHORTEST_MEAN
    mean[cancelled] = heaviest[cancelled]
    return unit_rows(mean)
