"""Fitting on the simplex: what a blend is worth follows from the members' cosines with the truth and with each other.

For unit contributions v_m and shares w, the cosine of the blend with the truth t is sum_m w_m (v_m . t) /
sqrt(sum_mk w_m w_k (v_m . v_k)), so no vector is needed once these products are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Ids, Vectors

STEPS = 20
"""Shares are fitted in steps of 1/20: finer ones change the mean cosine by less than its interval by far."""

LEAST_GAIN = 0.001
"""Every member costs time: one that brings less than a thousandth of mean cosine gets no share."""

_LEAST_NORM = 1e-6


@dataclass(frozen=True, slots=True)
class BlendStatistics:
    """Cosines of m members' contributions on n pictures, under s settings of knn.

    `truth` (s, n, m) with the true vector, `between` (s, n, m, m) with each other.
    """

    truth: NDArray[np.float32]
    between: NDArray[np.float32]

    @staticmethod
    def empty(settings: int, rows: int, members: int) -> BlendStatistics:
        """All NaN, to be filled in with `put`."""
        truth = np.full((settings, rows, members), np.nan, dtype=np.float32)
        return BlendStatistics(
            truth, np.full((settings, rows, members, members), np.nan, dtype=np.float32)
        )

    def put(
        self, setting: int, rows: Ids, contributions: Sequence[Vectors], truth: Vectors
    ) -> None:
        """Fill in the rows of one setting.

        Args:
            contributions: (len(rows), 384) unit rows of each member.
            truth: (len(rows), 384) unit rows.
        """
        stacked = np.stack(contributions, axis=1)
        self.truth[setting, rows] = np.einsum("nmd,nd->nm", stacked, truth)
        self.between[setting, rows] = stacked @ stacked.transpose(0, 2, 1)

    def cosines(self, setting: int, rows: Ids, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """(p, len(rows)) cosines with the truth of the blends with (p, m) shares, each row of a sum of 1."""
        along = shares @ self.truth[setting, rows].astype(np.float64).T
        norms = np.einsum(
            "pm,nmk,pk->pn",
            shares,
            self.between[setting, rows].astype(np.float64),
            shares,
            optimize=True,
        )
        return np.asarray(along / np.sqrt(np.maximum(norms, _LEAST_NORM)))


@dataclass(frozen=True, slots=True)
class Choice:
    """What was fitted: the setting of knn by number, the share of each member (m,), and the mean cosine on the rows it saw."""

    setting: int
    shares: NDArray[np.float64]
    cosine: float


def simplex(members: int, *, steps: int = STEPS) -> NDArray[np.float64]:
    """(p, members) all shares that are multiples of 1/steps with a sum of 1."""
    bars = combinations(range(steps + members - 1), members - 1)
    return (
        np.array([np.diff([-1, *bar, steps + members - 1]) - 1 for bar in bars], dtype=np.float64)
        / steps
    )


def fit(tallies: BlendStatistics, rows: Ids, *, members: Sequence[int]) -> Choice:
    """The setting and the shares with the highest mean cosine on `rows`; a voter more has to bring `LEAST_GAIN`.

    Args:
        rows: at least one.
        members: columns that may have a share; the others get 0.
    """
    points = simplex(len(members))
    shares = np.zeros((len(points), tallies.truth.shape[2]))
    shares[:, list(members)] = points
    means = np.stack(
        [
            tallies.cosines(setting, rows, shares).mean(axis=1)
            for setting in range(len(tallies.truth))
        ]
    )
    voters = (points > 0).sum(axis=1)
    best: Choice | None = None
    for count in range(1, len(members) + 1):
        of_count = np.flatnonzero(voters == count)
        setting, position = np.unravel_index(
            int(means[:, of_count].argmax()), (len(means), len(of_count))
        )
        point = int(of_count[position])
        found = Choice(int(setting), shares[point], float(means[setting, point]))
        if best is None or found.cosine > best.cosine + LEAST_GAIN:
            best = found
    if best is None:
        raise ValueError("there is no member to choose from")
    return best
