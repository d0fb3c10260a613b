"""Ridge regression in closed form, for many features and few pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_DEAD_SPREAD = 1e-3


def block_scales(
    features: Matrix, widths: tuple[int, ...], shares: tuple[float, ...]
) -> tuple[Matrix, Matrix]:
    """Centre (p,) and scale (p,) after which every feature of a block spreads alike and block b holds `shares[b]` of the variance.

    Ridge punishes a large block no more than a small one then; the variance of all blocks together
    is 1. A feature that hardly ever moves (a channel that ReLU shuts) would get a huge scale; it
    gets 0.

    Args:
        features: (n, p) with p the sum of `widths`.
        widths: features in each block, in order.
        shares: positive, in any unit.

    Raises:
        ValueError: the widths do not sum to p, or there is not one share for each.
    """
    if sum(widths) != features.shape[1] or len(widths) != len(shares):
        raise ValueError(f"{features.shape[1]} features, widths {widths}, shares {shares}")
    centre, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale = np.zeros(features.shape[1])
    begin = 0
    for width, share in zip(widths, shares, strict=True):
        block = slice(begin, begin + width)
        alive = spread[block] > _DEAD_SPREAD * np.median(spread[block])
        scale[block][alive] = np.sqrt(share / sum(shares) / alive.sum()) / spread[block][alive]
        begin += width
    return centre.astype(np.float32), scale.astype(np.float32)


def principal_directions(centred: Matrix, count: int) -> Matrix:
    """(p, count) orthonormal directions of largest variance, the largest first; zeros where the rows span fewer.

    Args:
        centred: (n, p) centred rows.
        count: how many directions.
    """
    many = len(centred) > centred.shape[1]
    values, vectors = np.linalg.eigh(
        np.asarray(centred.T @ centred if many else centred @ centred.T, dtype=np.float64)
    )
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    real = values > _DEAD_SPREAD**2 * values[0]
    directions = np.zeros((centred.shape[1], count), dtype=np.float32)
    directions[:, : real.sum()] = (
        vectors[:, real] if many else centred.T @ (vectors[:, real] / np.sqrt(values[real]))
    )
    return directions


def ridge(
    inputs: Matrix, targets: Matrix, *, penalty: float, row_weights: NDArray[np.floating]
) -> Matrix:
    """(p, d) weights of ridge regression without an intercept; one system of n or of p equations, whichever is fewer.

    Minimises sum_i w_i |y_i - x_i W|² / n + penalty |W|², the weights w scaled to mean 1 (Saunders
    et al. 1998, with weights).

    Args:
        inputs: (n, p), centred by the caller.
        targets: (n, d), centred by the caller.
        penalty: positive, in units of the inputs' variance.
        row_weights: (n,) positive.

    Raises:
        ValueError: the lengths differ, or the penalty or a weight is not positive.
    """
    if (
        not len(inputs) == len(targets) == len(row_weights)
        or penalty <= 0
        or (np.asarray(row_weights) <= 0).any()
    ):
        raise ValueError(
            f"{len(inputs)} inputs, {len(targets)} targets, {len(row_weights)} weights, penalty {penalty}"
        )
    weights = np.asarray(row_weights, dtype=np.float64) / np.mean(row_weights)
    # float64: the penalty is a thousandth of the largest eigenvalue or less
    if len(inputs) > inputs.shape[1]:
        moments = np.asarray(
            inputs.T @ (inputs * weights[:, None].astype(np.float32)), dtype=np.float64
        )
        moments[np.diag_indices_from(moments)] += penalty * len(inputs)
        return np.asarray(
            np.linalg.solve(moments, inputs.T @ (targets * weights[:, None])), dtype=np.float32
        )
    inner = np.asarray(inputs @ inputs.T, dtype=np.float64)
    inner[np.diag_indices_from(inner)] += penalty * len(inputs) / weights
    return np.asarray(
        inputs.T @ np.linalg.solve(inner, np.asarray(targets, dtype=np.float64)), dtype=np.float32
    )
