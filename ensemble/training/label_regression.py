"""The regression behind what a head says in words: probabilities of labels, learned from pairs.

A ridge map for all labels at once, and for each the logistic regression of Platt 1999 from
out-of-fold scores to a probability. Shen et al. 2024 (PromptStealer, USENIX Security) detect the
modifiers of prompts so, with a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imprompt.core.logistic import logistic
from imprompt.core.metrics import average_precision
from imprompt.core.splits import group_folds
from imprompt.core.values import Ids
from imprompt.ensemble.ridge import Matrix, ridge

LABEL_PENALTY = 0.0004
LEAST_PAIRS = 15
"""How many pairs must hold a tag."""
LEAST_SKILL = 0.05
"""A tag is kept if its average precision out of fold gets that far from chance, 0, to 1."""

_FOLDS = 3
_NEVER = -50.0


@dataclass(frozen=True, slots=True)
class FittedLabels:
    """Labels as logits: `slope` (l,) times inputs @ `weight` (p, l), plus `intercept` (l,).

    `precision` (l,) is the average precision of each label out of fold.
    """

    weight: Matrix
    slope: Matrix
    intercept: Matrix
    precision: NDArray[np.float64]


def fit_labels(
    inputs: Matrix, labels: NDArray[np.bool_], *, groups: Ids, row_weights: NDArray[np.floating]
) -> FittedLabels:
    """Return the map from inputs to the logits of labels.

    A label that no row has, or every row, has probability 0 or 1.

    Args:
        inputs: (n, p), see `imprompt.encoders.lite_head.expanded`.
        labels: (n, l).
        groups: (n,); rows of near-duplicate texts share one, and no fold parts them.
        row_weights: (n,) positive.
    """
    scores = np.zeros(labels.shape, dtype=np.float32)
    n_folds = min(_FOLDS, len(np.unique(groups)))
    # One group cannot be split: every label then keeps its rate.
    for train, test in group_folds(groups, n_folds, seed=0) if n_folds > 1 else ():
        weight = _weight(inputs[train], labels[train], row_weights[train])
        scores[test] = inputs[test] @ weight
    n_labels = labels.shape[1]
    slope, intercept = np.zeros(n_labels, np.float32), np.zeros(n_labels, np.float32)
    precision = np.zeros(n_labels)
    for label in range(n_labels):
        held, score = labels[:, label], scores[:, label]
        if held.all() or not held.any():
            intercept[label] = -_NEVER if held.all() else _NEVER
            continue
        found = logistic(score[:, None].astype(np.float64), held, row_weights=row_weights)
        intercept[label], slope[label] = found
        precision[label] = average_precision(score, held)
    return FittedLabels(_weight(inputs, labels, row_weights), slope, intercept, precision)


def tags_to_keep(labels: NDArray[np.bool_], precision: NDArray[np.float64]) -> Ids:
    """Return the columns of the tags that enough rows hold and that are predicted well enough."""
    rate = labels.mean(axis=0)
    enough = (labels.sum(axis=0) >= LEAST_PAIRS) & (rate < 1)
    return np.flatnonzero(enough & (precision - rate >= LEAST_SKILL * (1 - rate)))


def _weight(inputs: Matrix, labels: NDArray[np.bool_], row_weights: NDArray[np.floating]) -> Matrix:
    targets = labels.astype(np.float32)
    mean = np.average(targets, axis=0, weights=row_weights).astype(np.float32)
    return ridge(inputs, targets - mean, penalty=LABEL_PENALTY, row_weights=row_weights)
