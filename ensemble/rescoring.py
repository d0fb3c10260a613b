"""A second opinion on the prompts around a picture: another encoder, whose vectors of the prompts the index holds, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import DualEncoder
from imprompt.core.values import Ids
from imprompt.encoders.caching import BatchCache, image_keys

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.store.open_index import OpenIndex


class SecondLook:
    """Compares pictures with prompts in another space of a version than the one that is searched.

    Args:
        version: stays open as long as this is used.
        pair: of a space that the version stores vectors of.

    Raises:
        SpaceMismatch: it stores none.
    """

    def __init__(self, version: OpenIndex, pair: DualEncoder) -> None:
        self._vectors = version.vectors(pair.spec.space)
        self._pair = pair
        self._pictures = BatchCache(lambda pictures: pair.images.encode(pictures), key=image_keys)

    def cosines(self, pictures: Sequence[Image], row_ids: Ids) -> NDArray[np.float32]:
        """(n, k) cosines of n pictures with the prompts of (n, k) row ids; -inf for the id -1."""
        flat = row_ids.reshape(-1)
        rows = np.zeros((len(flat), self._vectors.dim), dtype=np.float32)
        rows[flat >= 0] = self._vectors.rows(flat[flat >= 0])
        found = np.einsum(
            "nd,nkd->nk", self._pictures(pictures), rows.reshape(*row_ids.shape, self._vectors.dim)
        )
        return np.where(row_ids >= 0, found, -np.inf).astype(np.float32)

    def caption_cosines(
        self, pictures: Sequence[Image], texts: Sequence[str]
    ) -> NDArray[np.float32]:
        """(n,) cosines of n pictures with a text each."""
        return np.asarray(
            np.einsum("nd,nd->n", self._pictures(pictures), self._pair.texts.encode(texts)),
            dtype=np.float32,
        )


def rescored(
    first: NDArray[np.float32], second: NDArray[np.float32], *, share: float
) -> NDArray[np.float32]:
    """(n, k) cosines of the first encoder, moved by what the second one says.

    Two encoders' cosines have another mean and another spread, so each is measured, for each
    picture, by its standard scores z among the k. The mix goes back to the mean m and the deviation
    s of the first, on whose scale power and floor were chosen:

        m + s * ((1 - share) * z_first + share * z_second), at most 1

    Args:
        first, second: (n, k); -inf, in both, where there is no prompt, and there it stays.
        share: 0 leaves the first as it is, 1 takes the order and the distances of the second.
    """
    there = np.isfinite(first)
    z_first, mean, deviation = _standard_scores(first, there)
    z_second, _, _ = _standard_scores(second, there)
    mixed = np.minimum(mean + deviation * ((1 - share) * z_first + share * z_second), 1)
    return np.where(there, mixed, -np.inf).astype(np.float32)


def _standard_scores(
    cosines: NDArray[np.float32], there: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(z, mean, deviation) of each row among the places that are there; z is 0 where all are alike."""
    values = np.where(there, cosines, 0).astype(np.float64)
    counts = np.maximum(there.sum(axis=1, keepdims=True), 1)
    mean = values.sum(axis=1, keepdims=True) / counts
    centred = np.where(there, values - mean, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / counts)
    return centred / np.where(deviation > 0, deviation, 1), mean, deviation
