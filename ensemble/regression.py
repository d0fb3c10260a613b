"""Linear maps from features to vectors, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_DEAD_SPREAD = 1e-3
"""A feature that hardly ever moves (a channel that ReLU shuts) would get a huge weight from scaling; it gets none."""


@dataclass(frozen=True, slots=True)
class LinearMap:
    """features (n, p) @ weight (p, d) + bias (d,)."""

    weight: Matrix
    bias: Matrix

    def __call__(self, features: Matrix) -> Matrix:
        """(n, d) float32."""
        return np.asarray(features @ self.weight + self.bias, dtype=np.float32)


def ridge(features: Matrix, targets: Matrix, *, penalty: float, sample_weights: Matrix | None = None) -> LinearMap:
    """Ridge regression on standardised features, the intercept not penalised (Hastie, Tibshirani and Friedman, section 3.4).

    Args:
        features: (n, p).
        targets: (n, d).
        penalty: added to the features' second moments, in units of n; larger is smoother.
        sample_weights: (n,) positive; None weighs all rows alike.

    Raises:
        ValueError: the lengths differ, or the penalty is not positive.
    """
    if len(features) != len(targets) or penalty <= 0:
        raise ValueError(f"{len(features)} features, {len(targets)} targets, penalty {penalty}")
    weights = np.ones(len(features)) if sample_weights is None else np.asarray(sample_weights, dtype=np.float64)
    weights = weights / weights.sum()
    centre, target_mean = weights @ features, weights @ targets
    spread = np.sqrt(weights @ np.square(features - centre))
    spread = np.where(spread < _DEAD_SPREAD * np.median(spread), np.inf, spread)
    scaled = (features - centre) / spread * np.sqrt(weights)[:, None]
    moments = scaled.T @ scaled
    moments[np.diag_indices_from(moments)] += penalty
    solved = np.linalg.solve(moments, scaled.T @ ((targets - target_mean) * np.sqrt(weights)[:, None]))
    weight = solved / spread[:, None]
    return LinearMap(weight.astype(np.float32), (target_mean - centre @ weight).astype(np.float32))
