"""Ridge regression in closed form, for many features and few pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_DEAD_SPREAD = 1e-3
_EXACT_SIDE = 1500
_OVERSAMPLED = 100
_ITERATIONS = 8


def block_scales(
    features: Matrix, widths: tuple[int, ...], shares: tuple[float, ...]
) -> tuple[Matrix, Matrix]:
    """Return centre (p,) and scale (p,) that give block b the part `shares[b]` of the variance.

    All features of a block then spread alike, the variances of all blocks sum to 1, and ridge
    penalizes a large block no more than a small one. A feature that hardly varies (a channel that
    ReLU shuts) would get a huge scale; it gets 0.

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
    """Return (p, count) orthonormal directions, those of largest variance first.

    Columns beyond the rank of `centred` (n, p), whose rows are centred, are zeros. For large inputs
    the directions are found by iteration, and the last of them are approximate.
    """
    tall = len(centred) > centred.shape[1]  # decompose the smaller of the two Gram matrices
    gram = centred.T @ centred if tall else centred @ centred.T
    values, vectors = _leading_eigenvectors(gram, count)
    real = values > _DEAD_SPREAD**2 * values[0]
    directions = np.zeros((centred.shape[1], count), dtype=np.float32)
    directions[:, : real.sum()] = (
        vectors[:, real] if tall else centred.T @ (vectors[:, real] / np.sqrt(values[real]))
    )
    return directions


def _leading_eigenvectors(
    gram: Matrix, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the `count` largest eigenvalues, descending, and their eigenvectors as columns.

    A large matrix is projected to a subspace that is multiplied by it until it holds the leading
    eigenvectors (subspace iteration; Halko et al. 2011, algorithm 4.4): 20 times as fast.
    """
    if len(gram) <= max(_EXACT_SIDE, 2 * count):
        values, vectors = np.linalg.eigh(np.asarray(gram, dtype=np.float64))
        return values[::-1][:count], vectors[:, ::-1][:, :count]
    start = np.random.default_rng(0).standard_normal((len(gram), count + _OVERSAMPLED))
    basis = np.linalg.qr(gram @ start.astype(np.float32))[0]
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(gram @ basis)[0]
    small = np.asarray(basis.T @ (gram @ basis), dtype=np.float64)
    values, inner = np.linalg.eigh((small + small.T) / 2)
    return values[::-1][:count], basis @ inner[:, ::-1][:, :count]


def ridge(
    inputs: Matrix, targets: Matrix, *, penalty: float, row_weights: NDArray[np.floating]
) -> Matrix:
    """Return the (p, d) weights W of ridge regression without an intercept.

    Minimizes sum_i w_i |y_i - x_i W|² / n + penalty |W|², the weights w scaled to mean 1 (Saunders
    et al. 1998, with weights). Solves n or p equations, whichever is fewer.

    Args:
        inputs: (n, p), centred by the caller.
        targets: (n, d), centred by the caller.
        penalty: positive, in units of the inputs' variance.
        row_weights: (n,) positive.

    Raises:
        ValueError: the lengths differ, or the penalty or a weight is not positive.
    """
    lengths = (len(inputs), len(targets), len(row_weights))
    if len(set(lengths)) > 1 or penalty <= 0 or (np.asarray(row_weights) <= 0).any():
        raise ValueError("{} inputs, {} targets, {} weights, penalty {}".format(*lengths, penalty))
    weights = np.asarray(row_weights, dtype=np.float64) / np.mean(row_weights)
    # float64: the penalty is a thousandth of the largest eigenvalue or less.
    if len(inputs) > inputs.shape[1]:
        weighted = inputs * weights[:, None].astype(np.float32)
        moments = np.asarray(inputs.T @ weighted, dtype=np.float64)
        moments[np.diag_indices_from(moments)] += penalty * len(inputs)
        solution = np.linalg.solve(moments, inputs.T @ (targets * weights[:, None]))
    else:
        inner = np.asarray(inputs @ inputs.T, dtype=np.float64)
        inner[np.diag_indices_from(inner)] += penalty * len(inputs) / weights
        solution = inputs.T @ np.linalg.solve(inner, np.asarray(targets, dtype=np.float64))
    return np.asarray(solution, dtype=np.float32)
