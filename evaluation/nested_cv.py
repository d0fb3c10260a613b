"""Nested cross-validation: what is fitted for a fold has seen nothing of the fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Ids, Vectors, unit_rows
from imprompt.evaluation.blend_statistics import BlendStatistics, Choice, fit
from imprompt.evaluation.pair_set import PairSet

BLEND, CONSTANT = "blend", "constant"
PRINTED = "printed prompt"
GIVEN = "blend config as given"

Scores = dict[str, NDArray[np.float32]]
"""(n,) cosine with the truth of each pair's answer, by the answer's name."""


@dataclass(frozen=True, slots=True)
class FoldInputs:
    """BlendStatistics of all rows.

    In `outer` every row is answered by a head without its own fold; in `inner[f]`, of which rows of
    fold f are not to be read, by a head without its own fold and without f.
    """

    outer: BlendStatistics
    inner: tuple[BlendStatistics, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """Out-of-fold `scores` of all answers, and what the blend of each fold was fitted to."""

    scores: Scores
    choices: tuple[Choice, ...]


def without(name: str) -> str:
    """What the blend of all members but one is called."""
    return f"without {name}"


def fit_folds(sheet: FoldInputs, pairs: PairSet, names: Sequence[str]) -> Fitted:
    """Each member alone, the blend, and the blend without each member, all fitted for every fold on the others.

    Only rows of the main kind are fitted on; all are scored.

    Args:
        names: of the members, in the order of the tallies' columns.
    """
    members = range(len(names))
    plans = {names[member]: [member] for member in members} | {BLEND: list(members)}
    if len(names) > 1:
        plans |= {
            without(names[out]): [member for member in members if member != out] for out in members
        }
    scores = {label: np.empty(len(pairs), dtype=np.float32) for label in plans}
    choices = []
    for fold in range(pairs.n_folds):
        test, train = pairs.of_fold(fold), rows_to_fit(pairs, fold)
        for label, voters in plans.items():
            choice = fit(sheet.inner[fold], train, members=voters)
            scores[label][test] = sheet.outer.cosines(choice.setting, test, choice.shares[None])[0]
            if label == BLEND:
                choices.append(choice)
    return Fitted(scores, tuple(choices))


def rows_to_fit(pairs: PairSet, fold: int) -> Ids:
    """The rows of the main kind outside of a fold; all outside of it where the main kind has none there."""
    outside = pairs.folds != fold
    main = outside & pairs.fitted_on
    return np.flatnonzero(main if main.any() else outside)


def as_given(
    tallies: BlendStatistics, names: Sequence[str], shares: dict[str, float], *, setting: int
) -> NDArray[np.float32]:
    """(n,) cosines of the blend with these shares.

    Args:
        shares: by member, of a sum of 1.
        setting: of knn, by number.
    """
    weights = np.array([[shares.get(name, 0.0) for name in names]])
    return np.asarray(
        tallies.cosines(setting, np.arange(tallies.truth.shape[1]), weights)[0], dtype=np.float32
    )


def constant_scores(pairs: PairSet) -> NDArray[np.float32]:
    """(n,) what an answer gets that is the same for every picture of a kind: the mean prompt of that kind in the other folds."""
    kinds = np.array([row.kind for row in pairs.rows], dtype=str)
    scores = np.zeros(len(pairs), dtype=np.float32)
    for fold in range(pairs.n_folds):
        for kind in np.unique(kinds):
            test = (pairs.folds == fold) & (kinds == kind)
            train = (pairs.folds != fold) & (kinds == kind)
            mean: Vectors = unit_rows(
                pairs.truth[train if train.any() else pairs.folds != fold].mean(axis=0)[None]
            )
            scores[test] = pairs.truth[test] @ mean[0]
    return scores
