"""Fitting on the simplex, from cosines alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprompt.core.metrics import row_cosines
from imprompt.core.values import Vectors, unit_rows
from imprompt.ensemble.blend import blend
from imprompt.evaluation.blend_statistics import BlendStatistics, fit, simplex


def random_rows(rng: np.random.Generator, n: int = 30) -> Vectors:
    return unit_rows(rng.standard_normal((n, 16)))


def statistics_of(contributions: list[Vectors], truth: Vectors) -> BlendStatistics:
    statistics = BlendStatistics.empty(1, len(truth), len(contributions))
    statistics.put(0, np.arange(len(truth)), contributions, truth)
    return statistics


@given(st.integers(0, 1000), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any))
def test_the_cosine_of_a_blend_follows_from_the_statistics(seed: int, weights: list[int]) -> None:
    """It is that of the blend itself."""
    rng = np.random.default_rng(seed)
    contributions, truth = [random_rows(rng) for _ in range(3)], random_rows(rng)
    shares = np.array(weights) / sum(weights)
    expected = row_cosines(
        blend(dict(zip("abc", contributions, strict=True)), dict(zip("abc", shares, strict=True))),
        truth,
    )
    cosines = statistics_of(contributions, truth).cosines(0, np.arange(30), shares[None])[0]
    assert cosines == pytest.approx(expected, abs=1e-4)


def test_the_weights_that_made_the_truth_are_found() -> None:
    """Two members carry the truth .7 to .3; a third that knows nothing gets nothing."""
    rng = np.random.default_rng(1)
    left, right, noise = (random_rows(rng, 400) for _ in range(3))
    truth = unit_rows(0.7 * left + 0.3 * right)
    choice = fit(statistics_of([left, right, noise], truth), np.arange(400), members=[0, 1, 2])
    assert choice.shares == pytest.approx([0.7, 0.3, 0.0])
    assert choice.cosine == pytest.approx(1, abs=1e-3)
    alone = fit(statistics_of([left, right, noise], truth), np.arange(400), members=[1])
    assert alone.shares == pytest.approx([0, 1, 0])


def test_the_better_setting_is_chosen() -> None:
    """Of two settings of knn the one whose contributions are nearer to the truth."""
    rng = np.random.default_rng(2)
    truth, other = random_rows(rng), random_rows(rng)
    statistics = BlendStatistics.empty(2, 30, 1)
    statistics.put(0, np.arange(30), [other], truth)
    statistics.put(1, np.arange(30), [truth], truth)
    assert fit(statistics, np.arange(30), members=[0]).setting == 1


def test_a_member_that_adds_little_gets_no_share() -> None:
    """Less than a thousandth of cosine is not worth a member; more is."""
    rng = np.random.default_rng(3)
    truth, noise = random_rows(rng, 400), random_rows(rng, 400)
    nearly = unit_rows(truth + 0.05 * noise)
    assert fit(
        statistics_of([truth, nearly], truth), np.arange(400), members=[0, 1]
    ).shares.tolist() == [1, 0]
    worse, other = unit_rows(truth + noise), unit_rows(truth + random_rows(rng, 400))
    assert 0 not in fit(statistics_of([worse, other], truth), np.arange(400), members=[0, 1]).shares


@pytest.mark.parametrize(("members", "points"), [(1, 1), (2, 21), (3, 231)])
def test_the_simplex_is_whole(members: int, points: int) -> None:
    """All multiples of 1/20 with a sum of 1, each once."""
    grid = simplex(members)
    assert grid.shape == (points, members)
    assert grid.sum(axis=1) == pytest.approx(1)
    assert len(np.unique(grid, axis=0)) == points
