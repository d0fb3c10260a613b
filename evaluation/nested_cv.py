"""Nested cross-validation: heads and weights are fitted for a fold without seeing any of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import CorpusError
from imprompt.core.protocols import Progress
from imprompt.core.values import Vectors, unit_rows
from imprompt.encoders.lite_head import LiteHead
from imprompt.ensemble.training.head_regression import HeadExamples, fit_maps
from imprompt.ensemble.training.head_training import MIN_PAIRS, make_head
from imprompt.evaluation.blend_statistics import BlendStatistics, Choice, fit
from imprompt.evaluation.pair_set import PairSet

BLEND, CONSTANT = "blend", "constant"
PRINTED = "printed prompt"
GIVEN = "blend config as given"

Heads = dict[frozenset[int], LiteHead]
"""Heads of `lite`, by the folds left out of their training."""

Scores = dict[str, NDArray[np.float32]]
"""(n,) cosine with the truth of each pair's answer, by the answer's name."""


@dataclass(frozen=True, slots=True)
class FoldInputs:
    """Statistics of all rows: what the weights of every fold are fitted on and scored with.

    In `outer` every row is answered by a head trained without its fold; in `inner[f]` by a head
    trained without its fold and without f. Rows of fold f in `inner[f]` are not to be read.
    """

    outer: BlendStatistics
    inner: tuple[BlendStatistics, ...]


@dataclass(frozen=True, slots=True)
class FittedFolds:
    """Out-of-fold `scores` of all answers, and the blend fitted for each fold."""

    scores: Scores
    choices: tuple[Choice, ...]


def without(name: str) -> str:
    """Return the name of the blend of all members but one."""
    return f"without {name}"


def refit_heads(
    pairs: PairSet,
    examples: HeadExamples,
    *,
    main_kind: int,
    constants: LiteHead,
    progress: Progress,
) -> Heads:
    """Train a head without each fold, and one without each two folds.

    The weights for fold f are fitted on the other folds, where a row of fold g is answered by the
    head without f and g: otherwise something of f would leak into the weights.

    Args:
        examples: one for each pair of `pairs.taught`.
        main_kind: see `imprompt.ensemble.training.head_regression.fit_maps`.
        constants: the head whose constants all heads share.

    Raises:
        CorpusError: too few pairs are left to train on.
    """
    folds = range(pairs.n_folds)
    subsets = [frozenset(subset) for size in (1, 2) for subset in combinations(folds, size)]
    fewest = min(len(pairs.without(subset)) for subset in subsets)
    if fewest < MIN_PAIRS:
        raise CorpusError(
            f"Without two folds {fewest} pairs are left; a head needs at least {MIN_PAIRS}.",
            hint="Add pairs, or pass --unseen if the head was not trained on these pairs.",
        )
    heads: Heads = {}
    with progress.start("Training heads without each fold", len(subsets)) as task:
        for subset in subsets:
            training = examples[pairs.without(subset)]
            heads[subset] = _fit_head(training, main_kind=main_kind, constants=constants)
            task.advance(1)
    return heads


def fit_folds(inputs: FoldInputs, pairs: PairSet, names: Sequence[str]) -> FittedFolds:
    """Score each member, the blend, and the blend without each member, fitted without each fold.

    Weights are fitted on rows of the main kind; all rows are scored.

    Args:
        names: of the members, in the order of the statistics' columns.
    """
    members = range(len(names))
    blends = {names[member]: [member] for member in members} | {BLEND: list(members)}
    if len(names) > 1:
        for left_out in members:
            others = [member for member in members if member != left_out]
            blends[without(names[left_out])] = others
    scores = {label: np.empty(len(pairs), dtype=np.float32) for label in blends}
    choices = []
    for fold in range(pairs.n_folds):
        test, train = pairs.of_fold(fold), pairs.training_rows(fold)
        for label, columns in blends.items():
            choice = fit(inputs.inner[fold], train, members=columns)
            scores[label][test] = inputs.outer.cosines(choice.setting, test, choice.shares[None])[0]
            if label == BLEND:
                choices.append(choice)
    return FittedFolds(scores, tuple(choices))


def given_scores(
    statistics: BlendStatistics, names: Sequence[str], shares: dict[str, float], *, setting: int
) -> NDArray[np.float32]:
    """Return the (n,) cosines of the blend with these shares.

    Args:
        shares: by member, of sum 1; a member that is missing has none.
        setting: the number of knn's setting.
    """
    weights = np.array([[shares.get(name, 0.0) for name in names]])
    rows = np.arange(statistics.truth.shape[1])
    return np.asarray(statistics.cosines(setting, rows, weights)[0], dtype=np.float32)


def constant_vectors(pairs: PairSet) -> Vectors:
    """Return (n, 384) unit rows: the mean prompt of a row's kind in the other folds.

    This is an answer that ignores the picture.
    """
    kinds = np.array([row.kind for row in pairs.rows], dtype=str)
    vectors = np.zeros_like(pairs.truth)
    for fold in range(pairs.n_folds):
        outside = pairs.folds != fold
        for kind in np.unique(kinds):
            test = ~outside & (kinds == kind)
            same_kind = outside & (kinds == kind)
            train = same_kind if same_kind.any() else outside
            vectors[test] = unit_rows(pairs.truth[train].mean(axis=0)[None])
    return vectors


def _fit_head(examples: HeadExamples, *, main_kind: int, constants: LiteHead) -> LiteHead:
    # Kinds are numbered from 0 without a gap, and a kind may be missing from these rows.
    present, kinds = np.unique(examples.kinds, return_inverse=True)
    examples = replace(examples, kinds=kinds.astype(np.int64))
    if main_kind in present:
        main_kind = int(np.flatnonzero(present == main_kind)[0])
    else:
        main_kind = int(np.bincount(kinds).argmax())
    fitted = fit_maps(examples, prompt_mean=constants.prompt_mean, main_kind=main_kind)
    return make_head(fitted, constants=constants, training={})
