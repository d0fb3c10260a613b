"""Rescoring: the cosines of the prompts around a picture, mixed with those of a second encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import DualEncoder
from imprompt.core.values import Ids
from imprompt.encoders.caching import CachedEncoder
from imprompt.ensemble.neighbourhood import vectors_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.store.open_index import OpenIndex


class Rescorer:
    """Compares pictures with prompts in a second space, whose vectors the index stores as well.

    Args:
        version: stays open as long as this is used.
        encoder: of the second space.

    Raises:
        SpaceMismatch: the version stores no vectors of that space.
    """

    def __init__(self, version: OpenIndex, encoder: DualEncoder) -> None:
        self._vectors = version.vectors(encoder.spec.space)
        self._encoder = CachedEncoder(encoder)

    def cosines(self, pictures: Sequence[Image], row_ids: Ids) -> NDArray[np.float32]:
        """Return (n, k) cosines of n pictures with the prompts `row_ids` (n, k); -inf for id -1."""
        rows = vectors_of(self._vectors, row_ids)
        cosines = np.einsum("nd,nkd->nk", self._encoder.images.encode(pictures), rows)
        return np.where(row_ids >= 0, cosines, -np.inf).astype(np.float32)

    def caption_cosines(
        self, pictures: Sequence[Image], texts: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return (n,) cosines of n pictures with one text each."""
        rows = self._encoder.texts.encode(texts)
        cosines = np.einsum("nd,nd->n", self._encoder.images.encode(pictures), rows)
        return np.asarray(cosines, dtype=np.float32)


def rescored(
    first: NDArray[np.float32], second: NDArray[np.float32], *, share: float
) -> NDArray[np.float32]:
    """Return (n, k) cosines of the first encoder, mixed with those of the second.

    Two encoders' cosines differ in mean and spread, so both become standard scores z among the k of
    each picture. The mix is put back on the scale of the first (mean m, deviation s), for which
    power and floor were chosen:

        m + s * ((1 - share) * z_first + share * z_second), at most 1

    Args:
        first, second: (n, k); -inf in both where there is no prompt, and in the result.
        share: 0 keeps the first, 1 takes the order and the distances of the second.
    """
    present = np.isfinite(first)
    z_first, mean, deviation = _standard_scores(first, present)
    z_second, _, _ = _standard_scores(second, present)
    mixed = np.minimum(mean + deviation * ((1 - share) * z_first + share * z_second), 1)
    return np.where(present, mixed, -np.inf).astype(np.float32)


def _standard_scores(
    cosines: NDArray[np.float32], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return each row's (z, mean, deviation) over its present values; z is 0 if all are equal."""
    values = np.where(present, cosines, 0).astype(np.float64)
    counts = np.maximum(present.sum(axis=1, keepdims=True), 1)
    mean = values.sum(axis=1, keepdims=True) / counts
    centred = np.where(present, values - mean, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / counts)
    return centred / np.where(deviation > 0, deviation, 1), mean, deviation
