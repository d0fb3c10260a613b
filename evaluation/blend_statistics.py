"""Fit blend weights from cosines alone.

For unit contributions v_m and shares w, the cosine of the blend with the truth t is
sum_m w_m (v_m . t) / sqrt(sum_mk w_m w_k (v_m . v_k)). Once these products are known, no vector is
needed any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Ids, Vectors

STEPS = 20
"""Shares are multiples of 1/20: finer steps change the mean cosine far less than its interval."""

LEAST_GAIN = 0.001
"""Every member costs time: one that adds less than this to the mean cosine gets no share."""

_LEAST_NORM = 1e-6


@dataclass(frozen=True, slots=True)
class BlendStatistics:
    """Cosines of m members' contributions for n pictures, under s settings of knn.

    `truth` (s, n, m): with the true vector. `between` (s, n, m, m): with each other.
    """

    truth: NDArray[np.float32]
    between: NDArray[np.float32]

    @staticmethod
    def empty(settings: int, rows: int, members: int) -> BlendStatistics:
        """Return statistics of NaN, to be filled by `put`."""
        return BlendStatistics(
            np.full((settings, rows, members), np.nan, dtype=np.float32),
            np.full((settings, rows, members, members), np.nan, dtype=np.float32),
        )

    def put(
        self, setting: int, rows: Ids, contributions: Sequence[Vectors], truth: Vectors
    ) -> None:
        """Fill in some rows of one setting.

        Args:
            contributions: (len(rows), 384) unit rows of each member.
            truth: (len(rows), 384) unit rows.
        """
        stacked = np.stack(contributions, axis=1)
        self.truth[setting, rows] = np.einsum("nmd,nd->nm", stacked, truth)
        self.between[setting, rows] = stacked @ stacked.transpose(0, 2, 1)

    def cosines(self, setting: int, rows: Ids, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (p, len(rows)) cosines with the truth of p blends.

        Args:
            shares: (p, m), each row of sum 1.
        """
        along = shares @ self.truth[setting, rows].astype(np.float64).T
        between = self.between[setting, rows].astype(np.float64)
        squares = np.einsum("pm,nmk,pk->pn", shares, between, shares, optimize=True)
        return np.asarray(along / np.sqrt(np.maximum(squares, _LEAST_NORM)))


@dataclass(frozen=True, slots=True)
class Choice:
    """A fit: the number of knn's setting, the (m,) shares, the mean cosine on the fitted rows."""

    setting: int
    shares: NDArray[np.float64]
    cosine: float


def simplex(members: int, *, steps: int = STEPS) -> NDArray[np.float64]:
    """Return the (p, members) multiples of 1/steps whose sum is 1."""
    # Stars and bars: the gaps between members - 1 bars among steps stars are the shares.
    slots = steps + members - 1
    gaps = [np.diff([-1, *bars, slots]) - 1 for bars in combinations(range(slots), members - 1)]
    return np.array(gaps, dtype=np.float64) / steps


def fit(statistics: BlendStatistics, rows: Ids, *, members: Sequence[int]) -> Choice:
    """Return the setting and shares of the highest mean cosine on `rows`.

    A further member gets a share only if the best blend with it gains more than `LEAST_GAIN`.

    Args:
        rows: at least one.
        members: columns that may get a share; the others get 0.

    Raises:
        ValueError: `members` is empty.
    """
    points = simplex(len(members))
    shares = np.zeros((len(points), statistics.truth.shape[2]))
    shares[:, list(members)] = points
    settings = range(len(statistics.truth))
    means = np.stack(
        [statistics.cosines(setting, rows, shares).mean(axis=1) for setting in settings]
    )
    sizes = (points > 0).sum(axis=1)
    best: Choice | None = None
    for size in range(1, len(members) + 1):
        of_size = np.flatnonzero(sizes == size)
        setting, column = np.unravel_index(
            int(means[:, of_size].argmax()), (len(means), len(of_size))
        )
        point = int(of_size[column])
        choice = Choice(int(setting), shares[point], float(means[setting, point]))
        if best is None or choice.cosine > best.cosine + LEAST_GAIN:
            best = choice
    if best is None:
        raise ValueError("there is no member to choose from")
    return best
