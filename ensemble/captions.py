"""Members that describe a picture in a sentence: the sentence's MiniLM vector is their vote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from imprompt.core.protocols import TextEncoder
from imprompt.core.values import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image


class Captioner(Protocol):
    """A model that writes sentences."""

    def captions(self, images: Sequence[Image]) -> list[str]:
        """One sentence for each upright RGB image, in the order given."""
        ...


class CaptionMember:
    """The member over a captioner.

    Args:
        name: what blend configs call it.
        captioner: writes the sentences.
        minilm: encodes them.
        suffix: appended to each sentence before it is encoded.
    """

    def __init__(
        self, name: str, captioner: Captioner, *, minilm: TextEncoder, suffix: str = ""
    ) -> None:
        self.name = name
        self._captioner = captioner
        self._minilm = minilm
        self._suffix = suffix

    def predict(self, images: Sequence[Image]) -> Prediction:
        """The sentences, suffix included, and their embeddings."""
        texts = tuple(caption + self._suffix for caption in self._captioner.captions(images))
        return Prediction(self._minilm.encode(texts), texts)
