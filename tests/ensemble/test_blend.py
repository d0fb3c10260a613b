"""The blend's laws, for any contributions and weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.core.errors import ConfigError
from imprompt.core.values import Vectors, unit_rows
from imprompt.ensemble.blend import blend, shares

NAMES = ["interrogator", "knn", "ofa", "vit"]
brief = settings(max_examples=40, deadline=None)  # a shared processor may pause at any moment
weightings = st.dictionaries(st.sampled_from(NAMES), st.floats(1e-3, 1e3), min_size=1)


def contributions(seed: int, *, rows: int = 5) -> dict[str, Vectors]:
    """Every member's rows, none of them unit."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(rows, 24)).astype(np.float32) * rng.uniform(0.1, 10)
        for name in NAMES
    }


@brief
@given(weightings, st.integers(0, 99))
def test_rows_have_length_1(weights: dict[str, float], seed: int) -> None:
    """Whatever the lengths of the contributions, the blend's rows are unit and float32."""
    blended = blend(contributions(seed), weights)
    assert blended.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(blended, axis=1), 1, atol=1e-6)


@brief
@given(weightings, st.integers(0, 99), st.floats(1e-200, 1e200))
def test_only_ratios_count(weights: dict[str, float], seed: int, scale: float) -> None:
    """A factor of all weights changes nothing; the order of members does not change a bit."""
    scaled = {name: weight * scale for name, weight in weights.items()}
    np.testing.assert_allclose(
        blend(contributions(seed), weights), blend(contributions(seed), scaled), atol=1e-6
    )
    turned = dict(reversed(weights.items()))
    np.testing.assert_array_equal(
        blend(contributions(seed), weights),
        blend(dict(reversed(contributions(seed).items())), turned),
    )


@brief
@given(weightings, st.integers(0, 99))
def test_lengths_of_contributions_do_not_count(weights: dict[str, float], seed: int) -> None:
    """Predictions are normalized before they are averaged: a member cannot gain by being long."""
    rows_of = contributions(seed)
    longer = {name: rows * np.float32(7) for name, rows in rows_of.items()}
    longer[next(iter(weights))] *= np.float32(3)
    np.testing.assert_allclose(blend(rows_of, weights), blend(longer, weights), atol=1e-6)


@brief
@given(st.sampled_from(NAMES), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_a_member_alone_is_the_blend(name: str, weight: float, seed: int) -> None:
    """With one weight above 0 the blend is that member's unit rows."""
    rows_of = contributions(seed)
    weights = dict.fromkeys(NAMES, 0.0) | {name: weight}
    np.testing.assert_allclose(blend(rows_of, weights), unit_rows(rows_of[name]), atol=1e-6)


@brief
@given(st.integers(0, 99), st.integers(1, 5))
def test_rows_are_blended_one_by_one(seed: int, rows: int) -> None:
    """A row of the blend depends on that row of the contributions alone."""
    rows_of, weights = contributions(seed), {"vit": 2.0, "knn": 1.0}
    part = {name: vectors[:rows] for name, vectors in rows_of.items()}
    np.testing.assert_array_equal(blend(rows_of, weights)[:rows], blend(part, weights))


def test_against_the_formula_by_hand() -> None:
    """Two members at right angles, weights 3 and 4: the blend is their 3-4-5 triangle."""
    blended = blend(
        {"a": np.array([[5, 0]], np.float32), "b": np.array([[0, 0.1]], np.float32)},
        {"a": 0.6, "b": 0.8},
    )
    np.testing.assert_allclose(blended, [[0.6, 0.8]], atol=1e-6)


def test_contributions_without_direction() -> None:
    """A row of zeros does not count; opposite rows of equal weight give the first by name."""
    x = np.array([[1, 0]], np.float32)
    np.testing.assert_array_equal(blend({"a": x, "b": 0 * x}, {"a": 0.1, "b": 0.9}), x)
    np.testing.assert_array_equal(blend({"a": x, "b": -x}, {"a": 1, "b": 1}), x)


@brief
@given(weightings, st.sets(st.sampled_from(NAMES)))
def test_shares_add_up_to_1(weights: dict[str, float], without: set[str]) -> None:
    """Without some members the others keep their ratios and take its weight."""
    if set(weights) <= without:
        with pytest.raises(ConfigError, match="is available"):
            shares(weights, without=without)
        return
    found = shares(weights, without=without)
    assert set(found) == set(weights) - without
    assert sum(found.values()) == pytest.approx(1)
    first = next(iter(found))
    for name, share in found.items():
        assert share / found[first] == pytest.approx(weights[name] / weights[first])


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"vit": 0.0},
        {"vit": 1.0, "knn": -0.1},
        {"vit": float("nan")},
        {"vit": float("inf")},
        {"vit": 0, "knn": 0},
    ],
)
def test_weights_that_cannot_be_used(weights: dict[str, float]) -> None:
    """Negative, zero-sum and not finite weights are refused before anything is added up."""
    with pytest.raises(ConfigError):
        blend(contributions(0), weights)


def test_a_missing_prediction_is_refused() -> None:
    """A weighted member without a prediction is an error."""
    with pytest.raises(ConfigError, match="ofa made no prediction"):
        blend({"vit": np.eye(2, dtype=np.float32)}, {"vit": 1, "ofa": 1})
    with pytest.raises(ValueError, match="shapes"):
        blend(
            {"a": np.eye(2, dtype=np.float32), "b": np.eye(3, dtype=np.float32)}, {"a": 1, "b": 1}
        )
