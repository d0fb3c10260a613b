"""Members that wrap a model: a captioner, or an image tower with a MiniLM head; and a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from imprompt.core.protocols import EnsembleMember, TextEncoder
from imprompt.core.values import Prediction, Vectors
from imprompt.encoders.caching import BatchCache, image_keys

if TYPE_CHECKING:
    from PIL.Image import Image


class CachedMember:
    """A member that predicts a batch once, also for several callers."""

    def __init__(self, member: EnsembleMember) -> None:
        self.name = member.name
        self.member = member
        self._predict = BatchCache(member.predict, key=image_keys)

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Return the member's prediction, not to be changed."""
        return self._predict(images)


class Captioner(Protocol):
    """A model that writes sentences."""

    def captions(self, images: Sequence[Image]) -> list[str]:
        """Return one sentence for each upright RGB image, in order; "" where it has none."""
        ...


class CaptionMember:
    """A captioner as a member: each sentence, `suffix` appended, is encoded by MiniLM.

    `name` is the member's name in blend configs.
    """

    def __init__(
        self, name: str, captioner: Captioner, *, minilm: TextEncoder, suffix: str = ""
    ) -> None:
        self.name = name
        self._captioner = captioner
        self._minilm = minilm
        self._suffix = suffix

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Return the sentences, suffix included, and their embeddings.

        An image without a caption has the text "" and a row of zeros, which does not count.
        """
        captions = self._captioner.captions(images)
        texts = tuple(caption + self._suffix if caption else "" for caption in captions)
        vectors = self._minilm.encode(texts)
        if "" in texts:
            vectors = np.where(np.array([[text != ""] for text in texts]), vectors, np.float32(0))
        return Prediction(vectors, texts)


class OutputTower(Protocol):
    """An image tower whose head predicts MiniLM vectors."""

    def output(self, items: Sequence[Image]) -> Vectors:
        """Return (n, 384) unit rows in MiniLM space, in order."""
        ...


class Regressor:
    """An output tower as the member `vit`; it predicts vectors only, no texts."""

    name = "vit"

    def __init__(self, tower: OutputTower) -> None:
        self._tower = tower

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Return the tower's vectors."""
        return Prediction(self._tower.output(images))
