"""The blend: a weighted mean of the members' unit vectors, scaled to length 1 again.

Unit vectors before averaging are worth +.004 on the competition's public board (36th place's
write-up).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from imprompt.core.errors import ConfigError
from imprompt.core.values import Vectors, unit_rows

_SHORTEST_MEAN = 1e-6


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise `ConfigError` unless there are weights, each a finite number of at least 0, with a sum above 0."""
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(
                f"The weight of {name} is {weight}; it must be a number of at least 0."
            )
    if not 0 < sum(weights.values()) < math.inf:
        raise ConfigError(
            f"The weights of {', '.join(weights) or 'no member'} add up to {sum(weights.values())}.",
            hint="At least one member needs a weight above 0.",
        )


def shares(weights: Mapping[str, float], *, without: Collection[str] = ()) -> dict[str, float]:
    """Each member's share of the vote: the weights of all that have one, but for those left out, scaled to a sum of 1.

    Raises:
        ConfigError: a weight is negative or not finite, or nothing is left.
    """
    check_weights(weights)
    left = {name: weight for name, weight in weights.items() if weight > 0 and name not in without}
    if not left:
        raise ConfigError(f"None of the members {', '.join(weights)} is left to vote.")
    largest = max(left.values())  # so that neither tiny nor huge weights leave the range of floats
    total = math.fsum(weight / largest for weight in left.values())
    return {name: weight / largest / total for name, weight in left.items()}


def blend(contributions: Mapping[str, Vectors], weights: Mapping[str, float]) -> Vectors:
    """(n, 384) unit rows: the weighted mean of the members' rows, each scaled to length 1 before and the sum after.

    A row of zeros has no direction and does not count. Where the contributions cancel each other out, the
    heaviest member's row stands.

    Args:
        contributions: (n, 384) rows by member.
        weights: by member; only their ratios count. A member of weight 0 may be absent from
            `contributions`.

    Raises:
        ConfigError: a weight is negative or not finite, none is above 0, or a member that has one
            did not vote.
        EncoderError: a member's value is not finite.
        ValueError: the contributions' shapes differ.
    """
    share = shares(weights)
    if missing := [name for name in share if name not in contributions]:
        raise ConfigError(f"{', '.join(missing)} did not vote.")
    # In the order of names and in float64, so that the order in which members are listed changes no
    # bit.
    rows = {
        name: unit_rows(contributions[name], role=f"the member {name}").astype(np.float64)
        for name in sorted(share)
    }
    if len({row.shape for row in rows.values()}) != 1:
        raise ValueError(
            f"the contributions' shapes differ: {', '.join(f'{name} {row.shape}' for name, row in rows.items())}"
        )
    mean = np.sum([share[name] * row for name, row in rows.items()], axis=0)
    heaviest = rows[max(rows, key=lambda name: share[name])]
    cancelled = np.linalg.norm(mean, axis=1) < _SHORTEST_MEAN
    mean[cancelled] = heaviest[cancelled]
    return unit_rows(mean)


def nearest(target: Vectors, candidates: Vectors) -> tuple[int, float]:
    """(position, cosine) of the candidate nearest to `target`; the first of several that are equally near.

    Args:
        target: (d,) a unit vector.
        candidates: (n, d) unit rows, n at least 1.
    """
    cosines = candidates.astype(np.float64) @ target.astype(np.float64)
    best = int(cosines.argmax())
    return best, float(cosines[best])
