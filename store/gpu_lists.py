"""The lists of an inverted file, made and chosen on a GPU where there is one. Not run on a GPU yet.

Clustering the sample and finding each row's nearest centroid is nearly all of the work of building an inverted file; the codes
are made on the processor either way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from core.values import Ids, Vectors
from store.gpu import Clone, Gpu
from store.library import import_faiss


def train(index: Any, sample: Vectors, gpu: Gpu | None) -> None:
    """Fit the lists and codes of FAISS's empty inverted file to (n, dim) `sample`; on a GPU, what rounds otherwise may differ.

    Raises:
        ConfigError: the GPU refuses, and it is required.
    """
    if gpu is None or gpu.attempt("cluster the sample", partial(_train, index, sample)) is None:
        index.reset()
        index.train(sample)


class Filler:
    """Puts rows into the lists of a trained inverted file, each into that of its nearest centroid.

    Args:
        gpu: finds the centroids; None, or one that gives up, leaves it to the processor.

    Raises:
        ConfigError: the GPU refuses, and it is required.
    """

    def __init__(self, index: Any, gpu: Gpu | None) -> None:
        self._index = index
        self._gpu = gpu
        self._centroids: list[Any] = []
        if gpu is not None:
            gpu.attempt("hold the centroids", self._fill)

    def add(self, rows: Vectors, row_ids: Ids) -> None:
        """Add (n, dim) rows under their ids.

        Raises:
            ConfigError: the GPU refuses, and it is required.
        """
        lists = None
        if self._gpu is not None and self._centroids:
            lists = self._gpu.attempt("find the rows' lists", partial(self._nearest, rows))
        if lists is None:
            self._index.add_with_ids(rows, row_ids)
        else:
            faiss = import_faiss()
            self._index.add_core(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(row_ids), faiss.swig_ptr(lists))

    def close(self) -> None:
        """Take the centroids off the GPU."""
        if self._gpu is not None:
            self._gpu.release(self._centroids)

    def _fill(self, clone: Clone) -> bool:
        faiss = import_faiss()
        self._centroids.append(clone(faiss.downcast_index(self._index.quantizer), float16=False))
        return True

    def _nearest(self, rows: Vectors, _: Clone) -> Ids:
        _, lists = self._centroids[0].search(rows, 1)
        return np.ascontiguousarray(lists.reshape(-1))


def _train(index: Any, sample: Vectors, clone: Clone) -> bool:
    faiss = import_faiss()
    clustering = clone(faiss.IndexFlatIP(index.d), float16=False)
    index.clustering_index = clustering
    try:
        index.train(sample)
    finally:
        index.clustering_index = None  # it does not outlive this call
    return True
