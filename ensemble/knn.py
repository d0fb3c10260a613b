"""`knn`: the mean MiniLM vector of the prompts around a picture, weighted by their nearness.

Kernel regression as in motono0223's notebook of the competition, with the weights
1 / (d^p + 1e-4), d = 1 - cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import EnsembleMember, TextEncoder
from imprompt.core.values import Prediction, Vectors, unit_rows
from imprompt.encoders.lite import prompt_mean
from imprompt.ensemble.blend_config import KnnSettings
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.ensemble.rescoring import Rescorer, rescored

if TYPE_CHECKING:
    from PIL.Image import Image

_EASE = 1e-4
"""Keeps the weight of a perfect match finite."""


def neighbour_weights(
    cosines: NDArray[np.float32], *, power: float, floor: float = -1.0
) -> NDArray[np.float64]:
    """Return (n, k) weights 1 / ((1 - cosine)^power + 1e-4), each row scaled to a sum of 1.

    A row without a neighbour gets zeros.

    Args:
        cosines: (n, k), k at least 1; -inf where there is no neighbour.
        power: at least 0; 0 weighs all alike.
        floor: neighbours of a lower cosine get weight 0, unless all are lower: then the nearest
            gets all the weight.
    """
    distances = np.maximum(1 - cosines.astype(np.float64), 0)
    present = np.isfinite(cosines)
    counted = present & (cosines >= floor)
    counted[np.arange(len(cosines)), cosines.argmax(axis=1)] |= ~counted.any(axis=1)
    counted &= present
    weights = np.zeros_like(distances)
    weights[counted] = 1 / (distances[counted] ** power + _EASE)
    totals = weights.sum(axis=1, keepdims=True)
    return np.asarray(weights / np.where(totals > 0, totals, 1))


def regress(
    cosines: NDArray[np.float32], vectors: NDArray[np.float32], *, power: float, floor: float = -1.0
) -> Vectors:
    """Return (n, 384) unit rows: the weighted means of the neighbours' vectors.

    Without a neighbour, a row is the mean of real prompts.

    Args:
        cosines: (n, k), as for `neighbour_weights`, which also explains `power` and `floor`.
        vectors: (n, k, 384) unit rows; any finite values where there is no neighbour.
    """
    weights = neighbour_weights(cosines, power=power, floor=floor)
    means = np.einsum("nk,nkd->nd", weights, vectors)
    without = ~weights.any(axis=1)
    if without.any():
        means[without] = prompt_mean()
    return unit_rows(means)


class Knn:
    """The member over the prompts of the index.

    Args:
        neighbourhood: finds the prompts.
        settings: power, floor and share of rescoring.
        captioners: members whose texts join the prompts around a picture.
        minilm: encodes those texts for the mean; the neighbourhood's encoder does for the distance.
        rescorer: compares the same prompts and texts by a second encoder.
    """

    name = "knn"

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        *,
        settings: KnnSettings,
        captioners: Sequence[EnsembleMember] = (),
        minilm: TextEncoder | None = None,
        rescorer: Rescorer | None = None,
    ) -> None:
        self._neighbourhood = neighbourhood
        self._settings = settings
        self._captioners = captioners
        self._minilm = minilm
        self._rescorer = rescorer

    def among(self, neighbourhood: Neighbourhood) -> Knn:
        """Return the same member over other prompts."""
        return Knn(
            neighbourhood,
            settings=self._settings,
            captioners=self._captioners,
            minilm=self._minilm,
            rescorer=self._rescorer,
        )

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Return the regressed vectors and, as texts, the prompts nearest to them, if any."""
        surroundings = self._neighbourhood.surroundings(images)
        cosines, vectors = [surroundings.hits.scores], [surroundings.vectors]
        captions: list[Sequence[str]] = []
        if self._minilm is not None:
            texts_of_all = (captioner.predict(images).texts for captioner in self._captioners)
            captions = [texts for texts in texts_of_all if texts is not None]
            encode = self._neighbourhood.encoder.texts.encode
            for texts in captions:
                rows = encode(texts)
                cosines.append(np.einsum("nd,nd->n", surroundings.pictures, rows)[:, None])
                vectors.append(self._minilm.encode(texts)[:, None])
        scores = np.concatenate(cosines, axis=1, dtype=np.float32)
        if self._rescorer is not None:
            second = [self._rescorer.cosines(images, surroundings.hits.ids)]
            second += [self._rescorer.caption_cosines(images, texts)[:, None] for texts in captions]
            scores = rescored(
                scores, np.concatenate(second, axis=1), share=self._settings.rescore_share
            )
        for column, texts in enumerate(captions, start=scores.shape[1] - len(captions)):
            scores[[text == "" for text in texts], column] = -np.inf
        rows = regress(
            scores,
            np.concatenate(vectors, axis=1),
            power=self._settings.power,
            floor=self._settings.floor,
        )
        row_ids, _ = self._neighbourhood.nearest(images, rows)
        return Prediction(rows, tuple(self._neighbourhood.texts(row_ids)))
