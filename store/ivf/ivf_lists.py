"""The lists of an inverted file: fitted to a sample, and chosen for each row.

A row stands in the list of its nearest centroid. Where it stands in a second one, too, that is
chosen to be near for queries for which the first is far: among the centroids nearest to the row,
the one with the least of

    |x - c'|^2 + 1.5 (r (x - c') / |r|)^2        with r = x - c, the residual of row x

where c is the first centroid (SOAR: Sun et al. 2023, arXiv:2404.00774, section 3). The residual of
the second is then nearly at a right angle to that of the first, so a query that one misleads is not
misled by the other.

Clustering the sample and finding centroids is nearly all of the work of building an inverted file,
and is done by a GPU where there is one (not run on a GPU yet); the processor makes the codes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from imprompt.core.values import Ids, Vectors
from imprompt.store.faiss_import import import_faiss
from imprompt.store.gpu import Clone, Gpu

_SECOND_AMONG = 16  # with 8 a query needs a twentieth more codes, with all centroids none less
# From 1 to 2 a query needs as many codes, within a twentieth; without it a third more.
_ANGLE_WEIGHT = 1.5
_ROWS_AT_ONCE = 4096


def train(index: Any, sample: Vectors, gpu: Gpu | None) -> None:
    """Fit the lists and codes of FAISS's empty inverted file to the (n, dim) sample.

    A GPU rounds differently, so its lists may differ.

    Raises:
        ConfigError: the GPU refuses, and it is required.
    """
    if gpu is None or gpu.attempt("cluster the sample", partial(_train, index, sample)) is None:
        index.reset()
        index.train(sample)


class Filler:
    """Puts rows into the lists of a trained inverted file.

    Args:
        gpu: finds the centroids; None, or one that gives up, leaves it to the processor.
        lists_a_row: 1, or 2 at most; there are as many lists.

    Raises:
        ConfigError: the GPU refuses, and it is required.
    """

    def __init__(self, index: Any, gpu: Gpu | None, lists_a_row: int) -> None:
        faiss = import_faiss()
        self._index = index
        self._gpu = gpu
        self._lists_a_row = lists_a_row
        self._quantizer = faiss.downcast_index(index.quantizer)
        self._centroids: Vectors = self._quantizer.reconstruct_n(0, index.nlist)
        self._on_gpu: list[Any] = []
        if gpu is not None:
            gpu.attempt("hold the centroids", self._fill)

    def add(self, rows: Vectors, row_ids: Ids) -> None:
        """Add (n, dim) rows of length 1 under their ids.

        Raises:
            ConfigError: the GPU refuses, and it is required.
        """
        faiss = import_faiss()
        n_near = 1 if self._lists_a_row == 1 else min(_SECOND_AMONG, self._index.nlist)
        near = None
        if self._gpu is not None and self._on_gpu:
            near = self._gpu.attempt(
                "find the rows' lists", lambda _: self._on_gpu[0].search(rows, n_near)[1]
            )
        if near is None:
            near = self._quantizer.search(rows, n_near)[1]
        chosen = [np.ascontiguousarray(near[:, 0])]
        if self._lists_a_row == 2:
            chosen.append(second_lists(rows, near, self._centroids))
        for lists in chosen:
            self._index.add_core(
                len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(row_ids), faiss.swig_ptr(lists)
            )

    def close(self) -> None:
        """Take the centroids off the GPU."""
        if self._gpu is not None:
            self._gpu.release(self._on_gpu)

    def _fill(self, clone: Clone) -> bool:
        self._on_gpu.append(clone(self._quantizer, float16=False))
        return True


def second_lists(rows: Vectors, near: Ids, centroids: Vectors) -> Ids:
    """Return the (n,) second list of each row; see the module.

    Args:
        rows: (n, dim).
        near: (n, m) numbers of the centroids nearest to each row, nearest first; m is at least 2.
            One of them is chosen.
        centroids: (lists, dim).
    """
    chosen = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        row, numbers = rows[part], near[part]
        first_left = row - centroids[numbers[:, 0]]
        length2 = np.maximum(np.vecdot(first_left, first_left), np.finfo(np.float32).tiny)
        least = np.full(len(row), np.inf, dtype=np.float32)
        for place in range(1, numbers.shape[1]):
            left = row - centroids[numbers[:, place]]
            loss = (
                np.vecdot(left, left) + _ANGLE_WEIGHT * np.vecdot(first_left, left) ** 2 / length2
            )
            better = loss < least
            least[better] = loss[better]
            chosen[part][better] = numbers[better, place]
    return chosen


def _train(index: Any, sample: Vectors, clone: Clone) -> bool:
    faiss = import_faiss()
    clustering = clone(faiss.IndexFlatIP(index.d), float16=False)
    index.clustering_index = clustering
    try:
        index.train(sample)
    finally:
        index.clustering_index = None  # it does not outlive this call
    return True


def rotation_for(sample: Vectors, pieces: int) -> Vectors:
    """Return the (dim, dim) float32 orthogonal matrix that (n, dim) rows are multiplied with.

    A turned vector is cut into pieces that hold about as much each, so that short codes lose least.
    Products stay the same, so rows and queries that are both turned keep their cosines. The axes
    are the principal ones, dealt out to the pieces by the products of their variances: "eigenvalue
    allocation" of optimised product quantisation (Ge et al. 2013, doi:10.1109/CVPR.2013.379,
    section 3.3).

    Args:
        sample: (n, dim) float32 rows.
        pieces: of equal length; they divide dim.
    """
    dim = sample.shape[1]
    products = np.zeros((dim, dim))
    for start in range(0, len(sample), _ROWS_AT_ONCE):
        rows = sample[start : start + _ROWS_AT_ONCE].astype(np.float64)
        products += rows.T @ rows
    variances, axes = np.linalg.eigh(products)
    logarithms = np.log(np.maximum(variances, np.finfo(np.float64).tiny))
    logarithms -= logarithms.min()  # so that a piece's sum rises with every axis
    chosen: list[list[int]] = [[] for _ in range(pieces)]
    sums = np.zeros(pieces)
    for axis in range(dim - 1, -1, -1):  # the largest first
        least = int(np.argmin(sums))
        chosen[least].append(axis)
        sums[least] = (
            sums[least] + logarithms[axis] if len(chosen[least]) < dim // pieces else np.inf
        )
    return np.ascontiguousarray(axes[:, np.concatenate(chosen)], dtype=np.float32)
