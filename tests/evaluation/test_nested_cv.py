"""Nested cross-validation: nothing of a fold reaches what is fitted for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imprompt.core.metrics import row_cosines
from imprompt.core.values import unit_rows
from imprompt.ensemble.training.pairs import Pair
from imprompt.evaluation.blend_statistics import BlendStatistics
from imprompt.evaluation.nested_cv import (
    BLEND,
    FoldInputs,
    constant_vectors,
    fit_folds,
    given_scores,
    without,
)
from imprompt.evaluation.pair_set import PairSet

N = 200


def pair_set(*, kinds: int = 1) -> PairSet:
    truth = unit_rows(np.random.default_rng(0).standard_normal((N, 384)))
    rows = tuple(Pair(Path("x"), ("x",), kind=f"kind {number % kinds}") for number in range(N))
    return PairSet(rows, truth, np.arange(N), np.arange(N) % 5, np.arange(N) % kinds == 0, ())


def fold_inputs(pairs: PairSet, *, spoil: int | None = None) -> FoldInputs:
    """Two members, the first far better; in `outer`, fold `spoil` says the opposite."""
    rng = np.random.default_rng(1)
    good = unit_rows(pairs.truth + 0.05 * rng.standard_normal(pairs.truth.shape))
    bad = unit_rows(rng.standard_normal(pairs.truth.shape))
    rows = np.arange(N)
    inner = BlendStatistics.empty(1, N, 2)
    inner.put(0, rows, [good, bad], pairs.truth)
    outer = BlendStatistics.empty(1, N, 2)
    outer.put(0, rows, [good, bad], pairs.truth)
    if spoil is not None:
        test = pairs.of_fold(spoil)
        outer.put(0, test, [bad[test], pairs.truth[test]], pairs.truth[test])
    return FoldInputs(outer, (inner,) * 5)


def test_a_fold_does_not_choose_its_own_weights() -> None:
    """If members swap quality in one fold, its weights stay those of the other folds."""
    pairs = pair_set()
    fitted = fit_folds(fold_inputs(pairs, spoil=2), pairs, ["first", "second"])
    assert all(choice.shares[0] > 0.9 for choice in fitted.choices)
    test = pairs.folds == 2
    assert fitted.scores[BLEND][test].mean() < 0.2 < 0.6 < fitted.scores[BLEND][~test].mean()


def test_all_answers_are_scored() -> None:
    """Each member, the blend, and the blend without each member (of two: the other one)."""
    pairs = pair_set()
    scores = fit_folds(fold_inputs(pairs), pairs, ["first", "second"]).scores
    assert set(scores) == {"first", "second", BLEND, without("first"), without("second")}
    assert np.array_equal(scores[without("first")], scores["second"])


def test_the_main_kind_is_fitted_on() -> None:
    """Rows of another kind are scored and not fitted on."""
    pairs = pair_set(kinds=2)
    rows = pairs.training_rows(0)
    assert pairs.is_main[rows].all()
    assert not (pairs.folds[rows] == 0).any()


def test_given_shares_are_taken_as_they_are() -> None:
    """A member without one has no weight."""
    pairs = pair_set()
    scores = given_scores(fold_inputs(pairs).outer, ["first", "second"], {"first": 1.0}, setting=0)
    assert np.allclose(
        scores, fit_folds(fold_inputs(pairs), pairs, ["first", "second"]).scores["first"], atol=1e-6
    )


def test_the_constant_does_not_see_its_fold() -> None:
    """A prompt that only one fold has is not in the constant of that fold."""
    pairs = pair_set()
    pairs.truth[pairs.folds == 1] = unit_rows(np.ones((1, 384)))
    scores = row_cosines(constant_vectors(pairs), pairs.truth)
    assert abs(scores[pairs.folds == 1].mean()) < 0.2
    assert scores[pairs.folds != 1].mean() < 0.5
