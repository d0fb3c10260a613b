"""Fitting on the simplex: what a blend is worth follows from the members' cosines with the truth and with each other.

For unit votes v_m and shares w, the cosine of the blend with the truth t is sum_m w_m (v_m . t) / sqrt(sum_mk w_m w_k (v_m . v_k)),
so no vector is needed once these products are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from core.values import Ids, Vectors

STEPS = 20
"""Shares are fitted in steps of 1/20: finer ones change the mean cosine by less than its interval by far."""

_LEAST_NORM = 1e-6


@dataclass(frozen=True, slots=True)
class Tallies:
    """Cosines of m members' votes on n pictures, under s settings of knn.

    `truth` (s, n, m) with the true vector, `between` (s, n, m, m) with each other.
    """

    truth: NDArray[np.float32]
    between: NDArray[np.float32]

    @staticmethod
    def empty(settings: int, rows: int, members: int) -> Tallies:
        """All NaN, to be filled in with `put`."""
        truth = np.full((settings, rows, members), np.nan, dtype=np.float32)
        return Tallies(truth, np.full((settings, rows, members, members), np.nan, dtype=np.float32))

    def put(self, setting: int, rows: Ids, votes: Sequence[Vectors], truth: Vectors) -> None:
        """Fill in the rows of one setting.

        Args:
            votes: (len(rows), 384) unit rows of each member.
            truth: (len(rows), 384) unit rows.
        """
        stacked = np.stack(votes, axis=1)
        self.truth[setting, rows] = np.einsum("nmd,nd->nm", stacked, truth)
        self.between[setting, rows] = stacked @ stacked.transpose(0, 2, 1)

    def cosines(self, setting: int, rows: Ids, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """(p, len(rows)) cosines with the truth of the blends with (p, m) shares, each row of a sum of 1."""
        along = shares @ self.truth[setting, rows].astype(np.float64).T
        norms = np.einsum("pm,nmk,pk->pn", shares, self.between[setting, rows].astype(np.float64), shares, optimize=True)
        return np.asarray(along / np.sqrt(np.maximum(norms, _LEAST_NORM)))


@dataclass(frozen=True, slots=True)
class Choice:
    """What was fitted: the setting of knn by number, the share of each member (m,), and the mean cosine on the rows it saw."""

    setting: int
    shares: NDArray[np.float64]
    cosine: float


def simplex(members: int, *, steps: int = STEPS) -> NDArray[np.float64]:
    """(p, members) all shares that are multiples of 1/steps with a sum of 1; those with the fewest voters first."""
    bars = combinations(range(steps + members - 1), members - 1)
    points = np.array([np.diff([-1, *bar, steps + members - 1]) - 1 for bar in bars], dtype=np.float64) / steps
    return points[np.argsort((points > 0).sum(axis=1), kind="stable")]


def fit(tallies: Tallies, rows: Ids, *, members: Sequence[int], settings: Sequence[int] | None = None) -> Choice:
    """The setting and the shares with the highest mean cosine on `rows`; of equals the one with fewer voters.

    Args:
        rows: at least one.
        members: columns that may have a share; the others get 0.
        settings: those to choose from; None for all.
    """
    grid = np.zeros((len(points := simplex(len(members))), tallies.truth.shape[2]))
    grid[:, list(members)] = points
    best: Choice | None = None
    for setting in range(len(tallies.truth)) if settings is None else settings:
        means = tallies.cosines(setting, rows, grid).mean(axis=1)
        winner = int(means.argmax())
        if best is None or means[winner] > best.cosine:
            best = Choice(setting, grid[winner], float(means[winner]))
    if best is None:
        raise ValueError("there is no setting to choose from")
    return best
