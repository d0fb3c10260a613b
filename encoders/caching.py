"""Work that two users of one network need done once: what it said last is kept, and said again to the same question."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.minilm import MiniLM

if TYPE_CHECKING:
    from PIL.Image import Image

Seen = TypeVar("Seen")


class LastTexts:
    """MiniLM, with the vectors of the texts that it was asked last: two spaces that are made of them cost one pass."""

    def __init__(self, minilm: MiniLM) -> None:
        self._minilm = minilm
        self._last: tuple[list[str], Vectors] | None = None

    @property
    def spec(self) -> EncoderSpec:
        return self._minilm.spec

    def encode(self, items: Sequence[str]) -> Vectors:
        """(n, 384) float32 unit rows in the order given, for the caller to keep and to change."""
        texts = list(items)
        last = self._last  # read once: another thread may replace it
        if last is None or last[0] != texts:
            last = (texts, self._minilm.encode(texts))
            self._last = last
        return last[1].copy()

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens before truncation, special tokens included."""
        return self._minilm.token_lengths(texts)

    def provenance(self) -> Mapping[str, Any]:
        """How the vectors are computed."""
        return self._minilm.provenance()


class LastPictures(Generic[Seen]):
    """What `look` saw in the pictures that were shown last. Pictures are the same when they are the same objects, unchanged.

    It holds no picture alive, and only the last result.
    """

    def __init__(self, look: Callable[[Sequence[Image]], Seen]) -> None:
        self._look = look
        self._last: tuple[list[weakref.ref[Image]], Seen] | None = None

    def __call__(self, pictures: Sequence[Image]) -> Seen:
        last = self._last  # read once: another thread may replace it
        if last is not None and len(last[0]) == len(pictures) and all(map(_is, last[0], pictures)):
            return last[1]
        seen = self._look(pictures)
        self._last = ([weakref.ref(picture) for picture in pictures], seen)
        return seen


def _is(known: weakref.ref[Image], picture: Image) -> bool:
    return known() is picture
