"""Confidence: the fit, and the measures of its quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from imprompt.core.logistic import logistic
from imprompt.core.values import EncoderSpec
from imprompt.ensemble.confidence import ConfidenceFeatures
from imprompt.ensemble.training.pairs import Pair
from imprompt.evaluation.calibration import auroc, calibrate, expected_calibration_error
from imprompt.evaluation.pair_set import PairSet

SPEC = EncoderSpec("test", "space", 4, 77)


def pair_set(n: int) -> PairSet:
    """Pairs of which only folds and groups matter."""
    rows = tuple(Pair(Path("x"), ("x",)) for _ in range(n))
    truth = np.zeros((n, 384), np.float32)
    return PairSet(rows, truth, np.arange(n), np.arange(n) % 5, np.ones(n, dtype=np.bool_), ())


def signs_of(values: np.typing.NDArray[np.float64]) -> list[ConfidenceFeatures]:
    return [
        ConfidenceFeatures(nearness=float(a), wording=float(b), agreement=float(c))
        for a, b, c in values
    ]


def test_what_can_be_known_is_calibrated() -> None:
    """If closeness depends on the features, confidence separates and is calibrated."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, (4000, 3))
    chance = 1 / (1 + np.exp(-(20 * (values[:, 0] - 0.55) + 5 * (values[:, 1] - 0.5))))
    printed = np.where(rng.random(4000) < chance, 0.9, 0.1).astype(np.float32)
    calibrated = calibrate(signs_of(values), printed, pair_set(4000), spec=SPEC, corpus_rows=1000)
    assert calibrated is not None
    assert calibrated.report.auroc > 0.8
    assert calibrated.report.ece < 0.05
    sure = ConfidenceFeatures(nearness=0.8, wording=0.6, agreement=0.5)
    unsure = ConfidenceFeatures(nearness=0.3, wording=0.4, agreement=0.5)
    assert (
        calibrated.calibration.probability(sure)
        > 0.9
        > 0.1
        > calibrated.calibration.probability(unsure)
    )


def test_what_cannot_be_known_is_not_claimed() -> None:
    """If closeness is random, out-of-fold confidence is the base rate."""
    rng = np.random.default_rng(1)
    printed = np.where(rng.random(4000) < 0.3, 0.9, 0.1).astype(np.float32)
    calibrated = calibrate(
        signs_of(rng.normal(0.5, 0.1, (4000, 3))),
        printed,
        pair_set(4000),
        spec=SPEC,
        corpus_rows=1000,
    )
    assert calibrated is not None
    assert calibrated.report.auroc == pytest.approx(0.5, abs=0.05)
    assert calibrated.confidence == pytest.approx(np.full(4000, 0.3), abs=0.15)
    assert calibrated.report.ece < 0.05


def test_too_few_cases_are_not_calibrated() -> None:
    """With hardly any close answer there is no calibration."""
    values = np.random.default_rng(2).normal(0.5, 0.1, (100, 3))
    printed = np.where(np.arange(100) < 5, 0.9, 0.1).astype(np.float32)
    assert calibrate(signs_of(values), printed, pair_set(100), spec=SPEC, corpus_rows=1000) is None


def test_the_regression_is_that_of_a_library() -> None:
    """The coefficients are those of scikit-learn's logistic regression without a penalty."""
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (500, 3))
    labels = rng.random(500) < 1 / (1 + np.exp(-values @ [1.0, -2.0, 0.0]))
    oracle = LogisticRegression(C=1e6, max_iter=1000).fit(values, labels)
    assert logistic(values, labels) == pytest.approx(
        [oracle.intercept_[0], *oracle.coef_[0]], abs=1e-2
    )


def test_the_area_under_the_curve_is_that_of_a_library() -> None:
    """Ties included; without one of both outcomes there is none."""
    rng = np.random.default_rng(4)
    scores, labels = rng.integers(0, 8, 200).astype(float), rng.random(200) < 0.4
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(auroc(scores, np.ones(200, dtype=np.bool_)))


def test_overconfidence_is_an_error() -> None:
    """Nine in ten claimed and one in two right is an error of 0.4; a frequency met is no error."""
    happened = np.arange(1000) % 2 == 0
    assert expected_calibration_error(np.full(1000, 0.9), happened) == pytest.approx(0.4, abs=0.01)
    assert expected_calibration_error(np.full(1000, 0.5), happened) == pytest.approx(0, abs=0.01)
