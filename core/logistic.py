"""Logistic regression of a few variables, which turns scores into probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PENALTY = 1e-2
_NEWTON_STEPS = 50


def logistic(
    values: NDArray[np.float64],
    labels: NDArray[np.bool_],
    *,
    row_weights: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Return (1 + f,) intercept and coefficients of a logistic regression.

    Newton's method, with a ridge penalty that only keeps separable data finite.

    Args:
        values: (n, f).
        labels: (n,) with both outcomes.
        row_weights: (n,) positive; None weighs all rows alike.
    """
    centre, spread = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9)
    inputs = np.column_stack([np.ones(len(values)), (values - centre) / spread])
    penalty = np.diag([0.0, *[_PENALTY] * values.shape[1]])
    counts = np.ones(len(values)) if row_weights is None else np.asarray(row_weights, np.float64)
    weights = np.zeros(inputs.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = sigmoid(inputs @ weights)
        gradient = inputs.T @ (counts * (chance - labels)) + penalty @ weights
        hessian = inputs.T @ (inputs * (counts * chance * (1 - chance))[:, None]) + penalty
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(hessian)), gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    coefficients = weights[1:] / spread
    return np.concatenate([[weights[0] - coefficients @ centre], coefficients])


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logits)), without an overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))
