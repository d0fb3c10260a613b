"""`knn`: the mean of the prompts around a picture, the nearer the heavier, in MiniLM space.

Kernel regression as in motono0223's notebook of the competition: weights 1 / (d^p + 1e-4), d = 1 -
cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import EnsembleMember, TextEncoder
from imprompt.core.values import Prediction, Vectors, unit_rows
from imprompt.ensemble.blend_config import KnnSettings
from imprompt.ensemble.neighbourhood import Neighbourhood, Surroundings
from imprompt.ensemble.rescoring import SecondLook, rescored

if TYPE_CHECKING:
    from PIL.Image import Image

_EASE = 1e-4
"""Keeps the weight of a perfect match finite."""


def neighbour_weights(
    cosines: NDArray[np.float32], *, power: float, floor: float = -1.0
) -> NDArray[np.float64]:
    """(n, k) weights 1 / ((1 - cosine)^power + 1e-4), each row scaled to a sum of 1.

    Args:
        cosines: (n, k), k at least 1; -inf where there is no neighbour.
        power: at least 0; 0 weighs all alike.
        floor: neighbours of a lower cosine get nothing; where none reaches it, the nearest alone
            counts.
    """
    distances = np.maximum(1 - cosines.astype(np.float64), 0)
    counts = np.isfinite(cosines) & (cosines >= floor)
    counts[np.arange(len(cosines)), cosines.argmax(axis=1)] |= ~counts.any(axis=1)
    weights = np.zeros_like(distances)
    weights[counts] = 1 / (distances[counts] ** power + _EASE)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def regress(
    cosines: NDArray[np.float32], vectors: NDArray[np.float32], *, power: float, floor: float = -1.0
) -> Vectors:
    """(n, 384) unit rows: the weighted means of the neighbours' vectors.

    Args:
        cosines: (n, k) of the neighbours, as `neighbour_weights` takes them.
        vectors: (n, k, 384) unit rows; anything finite where there is no neighbour.
        power, floor: see `neighbour_weights`.
    """
    weights = neighbour_weights(cosines, power=power, floor=floor)
    return unit_rows(np.einsum("nk,nkd->nd", weights, vectors))


class Knn:
    """The member over the index's own prompts.

    Args:
        neighbourhood: where prompts are found.
        settings: power and floor.
        captioners: members whose texts join the prompts around a picture, as if they stood in the
            index.
        minilm: encodes those texts for the mean; the neighbourhood's pair encodes them for the
            distance.
        second: another encoder's view of the same prompts and texts.
    """

    name = "knn"

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        *,
        settings: KnnSettings,
        captioners: Sequence[EnsembleMember] = (),
        minilm: TextEncoder | None = None,
        second: SecondLook | None = None,
    ) -> None:
        self._neighbourhood = neighbourhood
        self._settings = settings
        self._captioners = captioners
        self._minilm = minilm
        self._second = second

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Vectors, and as text the neighbour that is nearest to each."""
        found = self._neighbourhood.surroundings(images)
        cosines, vectors = found.hits.scores, found.vectors
        texts: list[Sequence[str]] = []
        if self._minilm is not None:
            texts = [
                said
                for captioner in self._captioners
                if (said := captioner.predict(images).texts) is not None
            ]
            cosines = np.concatenate(
                [cosines, *(self._cosines(found, captions)[:, None] for captions in texts)], axis=1
            )
            vectors = np.concatenate(
                [vectors, *(self._minilm.encode(captions)[:, None] for captions in texts)], axis=1
            )
        if self._second is not None:
            seen = [self._second.cosines(images, found.hits.ids)]
            seen += [self._second.caption_cosines(images, captions)[:, None] for captions in texts]
            cosines = rescored(
                cosines, np.concatenate(seen, axis=1), share=self._settings.rescore_share
            )
        rows = regress(cosines, vectors, power=self._settings.power, floor=self._settings.floor)
        row_ids, _ = self._neighbourhood.nearest(images, rows)
        return Prediction(rows, tuple(self._neighbourhood.texts(row_ids)))

    def _cosines(self, found: Surroundings, captions: Sequence[str]) -> NDArray[np.float32]:
        """(n,) cosines of the pictures with a text each, in the index space."""
        rows = self._neighbourhood.encoder.texts.encode(captions)
        return np.asarray(np.einsum("nd,nd->n", found.pictures, rows), dtype=np.float32)
