"""What all vector indexes share: the check of a query, cosines, and the order of hits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import Checksum, QueryError, SpaceMismatch
from imprompt.core.protocols import VectorStore
from imprompt.core.values import NO_HIT, Hits, Ids, IndexCaps, Selection, Vectors
from imprompt.store.layout import VERIFY

CAPS = IndexCaps(max_k=2048, steady_k=128)
"""What every index here guarantees. FAISS answers the largest k on a GPU too, so that an index can
move there. An index that guesses proposes at least `steady_k` rows, so a smaller k changes nothing.
"""

FEW_ROWS = 256
"""Up to so many selected rows are all compared, which is exact and quicker than an index."""

_NORM_TOLERANCE = 1e-3


class StoredVectors(Protocol):
    """A source of the vectors of candidates."""

    def cosines(self, query: Vectors, row_ids: Ids) -> NDArray[np.float32]:
        """Return the (n,) cosines of a (1, dim) unit row and stored rows, with `cosines`' bits."""
        ...


class BaseIndex(ABC):
    """The part of a `imprompt.core.protocols.VectorIndex` that all have in common.

    Args:
        vectors: of the space that is searched.
    """

    caps = CAPS

    def __init__(self, vectors: VectorStore) -> None:
        self.dim = vectors.dim
        self._rows = len(vectors)

    def __len__(self) -> int:
        return self._rows

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        effort: float | None = None,
        selection: Selection | None = None,
    ) -> Hits:
        """Return the k nearest rows of each query: see `imprompt.core.protocols.VectorIndex`."""
        queries = _validate_queries(queries, k, effort=effort, dim=self.dim)
        if selection is not None:
            row_ids = _validate_row_ids(selection.row_ids, rows=len(self))
            selection = replace(selection, row_ids=row_ids)
        return self.search_checked(queries, k, effort, selection)

    @abstractmethod
    def search_checked(
        self, queries: Vectors, k: int, effort: float | None, selection: Selection | None
    ) -> Hits:
        """Answer what `search` has checked; the selected row ids rise, each once."""

    def _n_selected(self, selection: Selection | None) -> int:
        return len(self) if selection is None else len(selection.row_ids)


def _validate_queries(queries: Vectors, k: int, *, effort: float | None, dim: int) -> Vectors:
    """Return the queries in C order if `VectorIndex.search` may answer them.

    Raises:
        SpaceMismatch: the queries have another dimension than `dim`.
        QueryError: not (q, dim) float32 of finite rows of length 1, or `k` or `effort` is out of
            range.
    """
    if not isinstance(queries, np.ndarray) or queries.dtype != np.float32 or queries.ndim != 2:
        is_array = isinstance(queries, np.ndarray)
        shown = f"{queries.dtype} {queries.shape}" if is_array else type(queries).__name__
        raise QueryError(f"Queries must be a float32 array (q, {dim}), not {shown}.")
    if queries.shape[1] != dim:
        raise SpaceMismatch(
            f"The queries have {queries.shape[1]} dimensions, the index has {dim}.",
            expected=f"{dim} dimensions",
            found=f"{queries.shape[1]} dimensions",
            hint="Use the encoder that the index was built with.",
        )
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= CAPS.max_k:
        raise QueryError(f"k is {k!r}; it must be a whole number from 1 to {CAPS.max_k}.")
    if effort is not None and not 0 <= effort <= 1:
        raise QueryError(f"effort is {effort!r}; it must be from 0 to 1.")
    norms = np.linalg.norm(queries, axis=1)
    errors = np.abs(norms - 1)
    if not (errors <= _NORM_TOLERANCE).all():
        if not np.isfinite(queries).all():
            raise QueryError("Queries hold NaN or infinite values.")
        worst = norms[errors.argmax()]
        raise QueryError(f"Queries must be rows of length 1; one has length {worst:.4g}.")
    return np.ascontiguousarray(queries)


def _validate_row_ids(row_ids: Ids, *, rows: int) -> Ids:
    """Return the selected row ids, rising and each once.

    Raises:
        QueryError: they are not whole numbers, or one is outside of 0 to `rows` - 1.
    """
    ids = np.asarray(row_ids).reshape(-1)
    # A filter's ids come in order: sorting two million of them again takes 20 times longer.
    if not (ids[1:] > ids[:-1]).all():
        ids = np.unique(ids)
    if ids.size and (not np.issubdtype(ids.dtype, np.integer) or ids[0] < 0 or ids[-1] >= rows):
        raise QueryError(
            f"Selected row ids must be whole numbers from 0 to {rows - 1}, "
            f"not {ids[0]} to {ids[-1]}."
        )
    return ids.astype(np.int64, copy=False)


def cosines(queries: Vectors, rows: Vectors) -> NDArray[np.float32]:
    """Return the (q, n) cosines of unit rows.

    They are summed in float64 and rounded once, so that a score does not depend on the other rows
    and queries of the batch: a float32 product would differ in its last bits between batches of 1
    and of 64, and reorder near ties.
    """
    return np.asarray(queries.astype(np.float64) @ rows.astype(np.float64).T, dtype=np.float32)


def ranked(ids: Ids, scores: NDArray[np.float32], k: int) -> tuple[Ids, NDArray[np.float32]]:
    """Return the first k (ids, scores) by falling score, ties by rising id."""
    if len(ids) > k:
        kth_score = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = scores >= kth_score
        ids, scores = ids[keep], scores[keep]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


class Scanned(NamedTuple):
    """(n,) scores of candidates by the index that proposed them, each within `error` of the cosine.

    `path` is that of the index.
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
    """Put the best candidates of one query, by their exact cosines, into row `row` of `hits`.

    Args:
        query: (1, dim) unit row.
        candidates: row ids, each once.
        scanned: their scores in the index that proposed them, where their error is known.

    Raises:
        Checksum: a score is off by more than that: a row of the index or of the vectors changed.
    """
    k = hits.ids.shape[1]
    exact = vectors.cosines(query, candidates)
    if scanned is not None and not (np.abs(scanned.scores - exact) <= scanned.error).all():
        raise Checksum(
            f"{scanned.path} is damaged: it scores a row otherwise than the vectors that it was "
            "made of.",
            path=scanned.path,
            hint=VERIFY,
        )
    ids, scores = ranked(candidates, exact, k)
    hits.ids[row, : len(ids)] = ids
    hits.scores[row, : len(ids)] = scores


def no_hits(n_queries: int, k: int) -> Hits:
    """Return hits that are all padding, to be filled in: ids -1, scores -inf."""
    return Hits(
        ids=np.full((n_queries, k), NO_HIT, dtype=np.int64),
        scores=np.full((n_queries, k), -np.inf, dtype=np.float32),
    )
