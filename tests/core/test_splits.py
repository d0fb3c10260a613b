"""Splits without leaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprompt.core.splits import group_folds, similarity_groups
from imprompt.core.values import unit_rows


def reference_groups(vectors: np.ndarray, threshold: float) -> list[int]:
    """Connected components by walking, the slow way."""
    near = vectors @ vectors.T >= threshold
    group = [-1] * len(vectors)
    for start in range(len(vectors)):
        if group[start] >= 0:
            continue
        open_rows = [start]
        while open_rows:
            row = open_rows.pop()
            if group[row] < 0:
                group[row] = start
                open_rows.extend(np.flatnonzero(near[row]).tolist())
    return group


@given(st.integers(1, 60), st.floats(-0.5, 0.95), st.integers(0, 1000))
def test_groups_are_connected_components(n: int, threshold: float, seed: int) -> None:
    """Union-find gives what walking the graph gives, and a group is named by its first row."""
    vectors = unit_rows(np.random.default_rng(seed).normal(size=(n, 4)))
    assert similarity_groups(vectors, threshold=threshold).tolist() == reference_groups(
        vectors, threshold
    )


def test_groups_join_across_blocks() -> None:
    """Twins that lie in different blocks of rows still meet."""
    vectors = unit_rows(np.random.default_rng(0).normal(size=(1500, 64)))
    vectors[1400] = vectors[3]
    assert similarity_groups(vectors, threshold=0.99)[1400] == 3


@given(
    st.lists(st.integers(0, 12), min_size=8, max_size=80).filter(
        lambda groups: len(set(groups)) >= 4
    ),
    st.integers(0, 99),
)
def test_no_group_stands_on_both_sides(groups: list[int], seed: int) -> None:
    """Every row is tested once, by a model that saw none of its group."""
    array = np.array(groups)
    tested = []
    for train, test in group_folds(array, 4, seed=seed):
        assert not set(array[train]) & set(array[test])
        assert sorted([*train, *test]) == list(range(len(groups)))
        tested += test.tolist()
    assert sorted(tested) == list(range(len(groups)))


def test_too_few_groups_are_refused() -> None:
    """Two groups cannot make three folds."""
    with pytest.raises(ValueError, match="2 groups"):
        list(group_folds(np.array([0, 0, 1]), 3, seed=0))
