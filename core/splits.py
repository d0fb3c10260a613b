"""Cross-validation splits that keep near-duplicate texts together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import Ids, Vectors

GROUP_COSINE = 0.7
"""MiniLM cosine at which two texts join one group.

A split by text alone leaks: a third of our texts have a near-duplicate.
"""

_BLOCK_ROWS = 1024


def similarity_groups(vectors: Vectors, *, threshold: float = GROUP_COSINE) -> Ids:
    """Return the connected components of the graph that joins rows of similar direction.

    Args:
        vectors: (n, dim) unit rows, MiniLM vectors of the texts.
        threshold: the cosine from which two rows are joined, -1 to 1.

    Returns:
        (n,) int64; the group of a row is the smallest row number in it.
    """
    parent = np.arange(len(vectors), dtype=np.int64)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    for begin in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[begin : begin + _BLOCK_ROWS]
        for row, other in zip(*np.nonzero(block @ vectors.T >= threshold), strict=True):
            left, right = root(begin + int(row)), root(int(other))
            parent[max(left, right)] = min(left, right)
    return np.array([root(row) for row in range(len(vectors))], dtype=np.int64)


def group_folds(groups: NDArray[np.int64], n_folds: int, *, seed: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield (train, test) row numbers of each fold; no group is on both sides.

    Groups are shuffled by `seed`, then assigned, largest first, to the fold with the fewest rows,
    so folds have nearly equal sizes; each row is tested exactly once.

    Raises:
        ValueError: fewer groups than folds, or fewer than two folds.
    """
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if n_folds < 2 or len(names) < n_folds:
        raise ValueError(f"{len(names)} groups cannot make {n_folds} folds")
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    fold_of_group = np.empty(len(names), dtype=np.int64)
    filled = np.zeros(n_folds, dtype=np.int64)
    for group in order:
        fold = int(filled.argmin())
        fold_of_group[group] = fold
        filled[fold] += sizes[group]
    fold_of_row = fold_of_group[member]
    for fold in range(n_folds):
        yield np.flatnonzero(fold_of_row != fold), np.flatnonzero(fold_of_row == fold)
