"""Labels: which words texts hold, and how probabilities of them are learned."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from imprompt.core.logistic import sigmoid
from imprompt.core.metrics import average_precision
from imprompt.ensemble.training.label_regression import fit_labels, tags_to_keep
from imprompt.ensemble.training.tag_words import tag_words, tags_held


def test_the_words_are_a_clean_list() -> None:
    """Sorted, each once, in lower case, of one or two parts."""
    words = tag_words()
    assert list(words) == sorted(set(words))
    assert all(word == word.casefold().strip() and len(word.split()) in (1, 2) for word in words)


def test_a_text_holds_words_and_pairs_of_words() -> None:
    """Whole words only, whatever their case; any text of a pair counts."""
    held = tags_held(
        [("A Castle, in the SNOW.", "pixel art"), ("forested snowmen, art pixel",), ()]
    )
    named = [{word for word, holds in zip(tag_words(), row, strict=True) if holds} for row in held]
    assert named == [{"castle", "snow", "pixel art"}, set(), set()]


def test_probabilities_are_calibrated_on_strangers() -> None:
    """Among unseen rows of a chance of p, a share of p has the label."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((6000, 12)).astype(np.float32)
    chance = sigmoid(2 * inputs[:, 0].astype(np.float64) - 1.5)
    labels = (rng.random(6000) < chance)[:, None]
    fitted = fit_labels(
        inputs[:4000], labels[:4000], groups=np.arange(4000), row_weights=np.ones(4000)
    )
    logits = inputs[4000:] @ fitted.weight * fitted.slope + fitted.intercept
    found = sigmoid(logits.astype(np.float64))[:, 0]
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (found >= low) & (found < high)
        assert labels[4000:][inside].mean() == pytest.approx(found[inside].mean(), abs=0.06)
    assert fitted.precision[0] == pytest.approx(
        average_precision(chance[:4000], labels[:4000, 0]), abs=0.03
    )


def test_labels_of_no_row_and_of_every_row_are_sure() -> None:
    """They need no regression."""
    inputs = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    labels = np.column_stack([np.zeros(40, bool), np.ones(40, bool)])
    fitted = fit_labels(inputs, labels, groups=np.arange(40), row_weights=np.ones(40))
    assert fitted.slope.tolist() == [0, 0]
    assert fitted.intercept.tolist() == [-50, 50]


def test_one_group_keeps_the_rate() -> None:
    """Rows of one group cannot be split into folds, and nothing is claimed to be predicted."""
    inputs = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    labels = (np.arange(40) % 4 == 0)[:, None]
    fitted = fit_labels(inputs, labels, groups=np.zeros(40, np.int64), row_weights=np.ones(40))
    assert fitted.slope[0] == pytest.approx(0, abs=1e-6)
    assert sigmoid(fitted.intercept.astype(np.float64))[0] == pytest.approx(0.25, abs=1e-3)


def test_tags_are_kept_by_number_and_precision() -> None:
    """15 pairs, and a twentieth of the way from chance to certainty."""
    labels = np.zeros((100, 4), dtype=bool)
    labels[:15, 0] = labels[:14, 1] = labels[:15, 2] = labels[:30, 3] = True
    precision = np.array([0.2, 0.9, 0.19, 0.34])
    assert tags_to_keep(labels, precision).tolist() == [0, 3]
    assert tags_to_keep(labels[:, :1], np.array([np.nan])).tolist() == []


def test_average_precision_is_scikit_learns() -> None:
    """Ties included; without a positive it is not a number."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, positive = rng.integers(0, 8, 30).astype(float), rng.random(30) < 0.3
        positive[0] = True
        assert average_precision(scores, positive) == pytest.approx(
            average_precision_score(positive, scores)
        )
    assert np.isnan(average_precision(np.ones(3), np.zeros(3, dtype=bool)))
