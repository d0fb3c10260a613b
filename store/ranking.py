"""What every vector index does alike: check the question, compute cosines that do not depend on the batch, put hits in order."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import Checksum, QueryError, SpaceMismatch
from imprompt.core.values import NO_HIT, Hits, Ids, Vectors

FEW_ROWS = 256
"""So few rows that may be answered are all looked at, which is exact and quicker than asking an index among them."""

MAX_K = 2048  # what FAISS answers on a GPU too, so that an index can move there
_NORM_TOLERANCE = 1e-3


class StoredVectors(Protocol):
    """Where candidates' vectors are read from."""

    def cosines(self, query: Vectors, row_ids: Ids) -> NDArray[np.float32]:
        """(n,) cosines of a (1, dim) unit row and the stored rows, to the bit as `cosines` has them."""
        ...


def check_queries(queries: Vectors, k: int, *, effort: float | None, dim: int) -> Vectors:
    """The queries in C order, when `VectorIndex.search` may answer them.

    Raises:
        SpaceMismatch: the queries have another dimension than `dim`.
        QueryError: not (q, dim) float32 of finite rows of length 1, or `k` or `effort` is out of
            range.
    """
    if not isinstance(queries, np.ndarray) or queries.dtype != np.float32 or queries.ndim != 2:
        found = (
            f"{queries.dtype} {queries.shape}"
            if isinstance(queries, np.ndarray)
            else type(queries).__name__
        )
        raise QueryError(f"Queries must be a float32 array (q, {dim}), not {found}.")
    if queries.shape[1] != dim:
        raise SpaceMismatch(
            f"The queries have {queries.shape[1]} dimensions, the index has {dim}.",
            expected=f"{dim} dimensions",
            found=f"{queries.shape[1]} dimensions",
            hint="Use the encoder that the index was built with.",
        )
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
        raise QueryError(f"k is {k!r}; it must be a whole number from 1 to {MAX_K}.")
    if effort is not None and not 0 <= effort <= 1:
        raise QueryError(f"effort is {effort!r}; it must be from 0 to 1.")
    norms = np.linalg.norm(queries, axis=1)
    if not (np.abs(norms - 1) <= _NORM_TOLERANCE).all():
        if not np.isfinite(queries).all():
            raise QueryError("Queries hold NaN or infinite values.")
        raise QueryError(
            f"Queries must be rows of length 1; one has length {norms[np.abs(norms - 1).argmax()]:.4g}."
        )
    return np.ascontiguousarray(queries)


def check_allowed(allowed: Ids | None, *, rows: int) -> Ids | None:
    """The allowed row ids, rising and each once; None where all are allowed.

    Raises:
        QueryError: they are not whole numbers, or one is outside of 0 to `rows` - 1.
    """
    if allowed is None:
        return None
    ids = np.asarray(allowed).reshape(-1)
    if not (
        ids[1:] > ids[:-1]
    ).all():  # a filter's ids come in order, and sorting two million of them again takes 20 times longer
        ids = np.unique(ids)
    if ids.size and (not np.issubdtype(ids.dtype, np.integer) or ids[0] < 0 or ids[-1] >= rows):
        raise QueryError(
            f"Allowed row ids must be whole numbers from 0 to {rows - 1}, not {ids[0]} to {ids[-1]}."
        )
    return ids.astype(np.int64)


def cosines(queries: Vectors, rows: Vectors) -> NDArray[np.float32]:
    """(q, n) cosines of unit rows.

    Summed in float64 and rounded once, so that a score does not depend on which other rows and
    queries are computed with it: a float32 product would differ in its last bits between a batch of
    1 and a batch of 64, and reorder near ties.
    """
    return np.asarray(queries.astype(np.float64) @ rows.astype(np.float64).T, dtype=np.float32)


def ranked(ids: Ids, scores: NDArray[np.float32], k: int) -> tuple[Ids, NDArray[np.float32]]:
    """The first k (ids, scores) by falling score, ties by rising id; fewer where there are fewer."""
    if len(ids) > k:
        kth_score = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = scores >= kth_score
        ids, scores = ids[keep], scores[keep]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


class Scanned(NamedTuple):
    """What proposed candidates said of them:

    (n,) `scores`, each within `error` of the cosine; `path` is that of its file.
    """

    scores: NDArray[np.float32]
    error: float
    path: Path


def score_again(
    hits: Hits,
    row: int,
    query: Vectors,
    candidates: Ids,
    vectors: StoredVectors,
    *,
    scanned: Scanned | None = None,
) -> None:
    """Put the best of the candidates of one question into row `row` of `hits`, by their exact cosines.

    Args:
        query: (1, dim) unit row.
        candidates: row ids, each once.
        scanned: their scores in the index that proposed them, where it says how exact these are.

    Raises:
        Checksum: such a score is off by more than that: a row of the index, or of the vectors, is
            not what it was.
    """
    k = hits.ids.shape[1]
    exact = vectors.cosines(query, candidates)
    if scanned is not None and not (np.abs(scanned.scores - exact) <= scanned.error).all():
        raise Checksum(
            f"{scanned.path} is damaged: it scores a row otherwise than the vectors that it was made of.",
            path=scanned.path,
            hint="Run `python cli.py verify` for the whole damage, then build the index again.",
        )
    ids, scores = ranked(candidates, exact, k)
    hits.ids[row, : len(ids)] = ids
    hits.scores[row, : len(ids)] = scores


def no_hits(n_queries: int, k: int) -> Hits:
    """Hits that are all padding, to be filled in: ids -1, scores -inf."""
    return Hits(
        ids=np.full((n_queries, k), NO_HIT, dtype=np.int64),
        scores=np.full((n_queries, k), -np.inf, dtype=np.float32),
    )
