"""The rotation after which a vector is cut into pieces that hold about as much each, so that short codes lose least.

It leaves products as they are, so rows and questions that are both turned have their old cosines.
The axes are the principal ones, dealt out to the pieces by the products of their variances:
"eigenvalue allocation" of optimised product quantisation (Ge et al. 2013,
doi:10.1109/CVPR.2013.379, section 3.3).
"""

from __future__ import annotations

import numpy as np

from imprompt.core.values import Vectors

_ROWS_AT_ONCE = 4096  # their float64 values take 12 MB


def rotation_for(sample: Vectors, pieces: int) -> Vectors:
    """(dim, dim) float32 orthogonal matrix to multiply (n, dim) rows with from the right.

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
