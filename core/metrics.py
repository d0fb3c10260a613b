"""Quality metrics and their confidence intervals, as pure functions over arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Vectors


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its confidence interval, over `n` items in `groups` independent groups."""

    mean: float
    low: float
    high: float
    n: int
    groups: int

    def __str__(self) -> str:
        """Return the mean and its bounds, as in 0.512 [0.498, 0.525]."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def row_cosines(left: Vectors, right: Vectors) -> NDArray[np.float32]:
    """Return the (n,) cosines of unit rows, row by row.

    Raises:
        ValueError: the shapes differ.
    """
    if left.shape != right.shape:
        raise ValueError(f"shapes differ: {left.shape} and {right.shape}")
    return np.asarray(np.einsum("nd,nd->n", left, right), dtype=np.float32)


def recall_at_k(
    queries: Vectors, candidates: Vectors, truth: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Return for each query whether its right candidate is among the k nearest by cosine.

    Args:
        queries: (q, dim) unit rows.
        candidates: (c, dim) unit rows.
        truth: (q,) position of each query's right candidate.
        k: at least 1. A candidate that ties with the right one counts against it.
    """
    scores = queries @ candidates.T
    right = scores[np.arange(len(queries)), truth]
    at_least = (scores >= right[:, None]).sum(axis=1)
    return np.asarray(at_least <= k)


def average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the mean, over the positives, of the precision down to each of them; NaN without one.

    Rows of equal score count as one step (the definition of scikit-learn).

    Args:
        scores: (n,), higher for what is more likely positive.
        positive: (n,).
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked, found = scores[order], np.cumsum(positive[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    gained = np.diff(found[ends], prepend=0)
    return float((gained * found[ends] / (ends + 1)).sum() / found[-1])


def group_bootstrap(
    values: NDArray[np.floating],
    groups: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Return the mean of `values` with a percentile interval from resampling whole groups.

    The method is the bootstrap of Efron and Tibshirani (1993), chapter 8.

    Args:
        values: (n,) one figure per item; for a paired difference, the differences.
        groups: (n,) the group of each item; items of a group are not independent.
        rng: seeded by the caller.
        resamples: bootstrap samples.
        level: between 0 and 1.

    Raises:
        ValueError: no values, or the lengths differ.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"{len(values)} values and {len(groups)} groups")
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    sums = np.bincount(member, weights=values, minlength=count)
    sizes = np.bincount(member, minlength=count)
    means = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.integers(0, count, count)
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high), len(values), count)
