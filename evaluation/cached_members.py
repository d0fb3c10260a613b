"""Encoders and members that see each pair once, however often the ensemble is asked about it.

The output of a trunk, a tower or a captioner does not depend on a head that is trained on the
pairs, so it is computed once and kept by row. The head of `lite` does, so every picture names the
head that it is to be seen with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from PIL.Image import Image

from imprompt.core.protocols import DualEncoder, EnsembleMember
from imprompt.core.values import Ids, Prediction, Vectors
from imprompt.encoders.caching import CachedEncoder, CachedTexts, ItemCache
from imprompt.encoders.efficientnet import Activations
from imprompt.encoders.lite import LiteEncoder, LiteImages
from imprompt.encoders.lite_head import LiteHead


class PairPicture(Image):
    """The picture of a pair, to be seen with one head of `lite`.

    It shares its pixels with the decoded picture but is a separate object, so that caches with
    `image_keys` never confuse two heads.

    Args:
        picture: the decoded picture.
        row: of the pair.
        head: None for the head of the encoder.
    """

    def __init__(self, picture: Image, *, row: int, head: LiteHead | None) -> None:
        super().__init__()
        picture.load()
        vars(self).update(vars(picture))
        self.row = row
        self.head = head


def pair_pictures(
    pictures: Sequence[Image], rows: Ids, *, head: LiteHead | None = None
) -> list[PairPicture]:
    """Return new pictures of these rows, all to be seen with one head."""
    return [
        PairPicture(picture, row=row, head=head)
        for picture, row in zip(pictures, rows.tolist(), strict=True)
    ]


def row_of(picture: Image) -> int:
    """Return the row of a `PairPicture`'s pair."""
    return _pair_picture(picture).row


def _pair_picture(picture: Image) -> PairPicture:
    if not isinstance(picture, PairPicture):
        raise TypeError("A cached member was asked about a picture that is not of a pair.")
    return picture


class CachedTrunk:
    """An image trunk whose `cached` activations have a row for each pair."""

    def __init__(self, cached: Activations) -> None:
        self.cached = cached

    def activations(self, images: Sequence[Image]) -> Activations:
        """Return the activations of pictures of pairs."""
        rows = [row_of(image) for image in images]
        return Activations(
            self.cached.pooled[rows], self.cached.stages[rows], self.cached.logits[rows]
        )


class CachedLiteImages(LiteImages):
    """The image tower of `lite` over cached trunks, with the head that the pictures name."""

    def _head_for(self, items: Sequence[Image]) -> LiteHead:
        head = _pair_picture(items[0]).head if items else None
        return self._head if head is None else head


class CachedLite(LiteEncoder):
    """`lite` over cached trunks.

    Args:
        lite: gives its head and shares its MiniLM.
        trunks: by name.
    """

    def __init__(self, lite: LiteEncoder, trunks: dict[str, CachedTrunk]) -> None:
        super().__init__(lite.head, lite.spec, device="cpu", announce=lambda _: None)
        self.trunks = trunks
        self._lite = lite

    @cached_property
    def minilm(self) -> CachedTexts:
        return self._lite.minilm

    @cached_property
    def images(self) -> CachedLiteImages:
        return CachedLiteImages(self.trunks, self.head)


def cached_by_row(encoder: DualEncoder) -> CachedEncoder:
    """Return an encoder whose image tower encodes each pair once."""
    rows = ItemCache[Image, Vectors](lambda images: encoder.images.encode(images), key=row_of)
    return CachedEncoder(encoder, lambda images: np.stack(rows(images)))


class RowCachedMember:
    """A member that learned nothing from the pairs and predicts each of them once."""

    def __init__(self, member: EnsembleMember) -> None:
        self.name = member.name
        self._member = member
        self._predictions = ItemCache(self._predict, key=row_of)

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Return the member's prediction for pictures of pairs."""
        vectors, texts = zip(*self._predictions(images), strict=True)
        return Prediction(np.stack(vectors), None if None in texts else texts)

    def _predict(self, images: Sequence[Image]) -> list[tuple[Vectors, str | None]]:
        prediction = self._member.predict(images)
        texts = prediction.texts if prediction.texts is not None else [None] * len(images)
        return list(zip(prediction.vectors, texts, strict=True))
