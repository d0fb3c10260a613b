"""Figures of quality."""

from __future__ import annotations

import numpy as np
import pytest

from imprompt.core.metrics import group_bootstrap, recall_at_k, row_cosines
from imprompt.core.values import unit_rows


def test_recall_counts_a_tie_against_the_query() -> None:
    """A constant answer finds nothing at k = 1, since every candidate ties with the right one."""
    candidates = unit_rows(np.ones((5, 3)))
    queries = candidates[:2]
    truth = np.array([0, 1])
    assert not recall_at_k(queries, candidates, truth, 1).any()
    assert recall_at_k(queries, candidates, truth, 5).all()


def test_recall_agrees_with_sorting() -> None:
    """The k nearest by sorting hold the right one exactly where recall says so."""
    rng = np.random.default_rng(1)
    queries, candidates = unit_rows(rng.normal(size=(40, 8))), unit_rows(rng.normal(size=(30, 8)))
    truth = rng.integers(0, 30, 40)
    nearest = np.argsort(-(queries @ candidates.T), axis=1)[:, :7]
    assert recall_at_k(queries, candidates, truth, 7).tolist() == [
        t in row for t, row in zip(truth, nearest, strict=True)
    ]


def test_the_interval_widens_when_items_of_a_group_agree() -> None:
    """A hundred copies of ten values say no more than the ten values."""
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=10), 100)
    by_group = group_bootstrap(values, np.repeat(np.arange(10), 100), rng=np.random.default_rng(0))
    by_item = group_bootstrap(values, np.arange(1000), rng=np.random.default_rng(0))
    assert by_group.high - by_group.low > 5 * (by_item.high - by_item.low)
    assert by_group.low < by_group.mean < by_group.high
    assert (by_group.n, by_group.groups) == (1000, 10)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples of 40 groups with mean 0, about 95 % of the intervals hold 0."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        estimate = group_bootstrap(rng.normal(size=40), np.arange(40), rng=rng, resamples=300)
        covered += estimate.low <= 0 <= estimate.high
    assert 175 <= covered <= 200


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Pairs are compared row by row or not at all."""
    with pytest.raises(ValueError, match="shapes"):
        row_cosines(unit_rows(np.eye(3)), unit_rows(np.eye(2)))
    with pytest.raises(ValueError, match="groups"):
        group_bootstrap(np.ones(3), np.ones(2, dtype=np.int64), rng=np.random.default_rng(0))
