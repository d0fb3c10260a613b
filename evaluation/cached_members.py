"""Stand-ins that let the product's own members answer many times without looking at a picture twice.

What a trunk, a tower or a captioner sees in a picture does not depend on a head that is trained on
the pairs. It is computed once and kept by row; the head, which does, is exchanged between the
questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.protocols import DualEncoder, Encoder, EnsembleMember, TextEncoder
from imprompt.core.values import EncoderSpec, Ids, Prediction, Vectors
from imprompt.encoders.caching import LastTexts
from imprompt.encoders.efficientnet import Activations
from imprompt.encoders.lite import LiteEncoder, LiteImages
from imprompt.encoders.lite_head import LiteHead

if TYPE_CHECKING:
    from PIL.Image import Image


class ShownImages:
    """The pictures that are on show, and which rows of the pairs they are."""

    def __init__(self) -> None:
        self._shown: list[Image] = []
        self._rows: dict[int, int] = {}

    def show(self, pictures: Sequence[Image], rows: Ids) -> list[Image]:
        """Put copies of pictures on show, which nobody has seen before, so that nobody answers from memory."""
        self._shown = [picture.copy() for picture in pictures]
        self._rows = {id(picture): int(row) for picture, row in zip(self._shown, rows, strict=True)}
        return self._shown

    def rows(self, pictures: Sequence[Image]) -> Ids:
        """The rows of pictures that are on show."""
        return np.array([self._rows[id(picture)] for picture in pictures], dtype=np.int64)


class SeenTrunk:
    """An image trunk that has seen all rows; `seen` has a row for each."""

    def __init__(self, seen: Activations, sitting: ShownImages) -> None:
        self.seen = seen
        self._sitting = sitting

    def activations(self, images: Sequence[Image]) -> Activations:
        """What it saw in pictures that are on show."""
        rows = self._sitting.rows(images)
        return Activations(self.seen.pooled[rows], self.seen.stages[rows], self.seen.logits[rows])


class ExchangeableImages(LiteImages):
    """The image tower of `lite` under one head after the other."""

    def use(self, head: LiteHead) -> None:
        """Answer with this head from now on."""
        self._head = head


class ExchangeablePair(LiteEncoder):
    """`lite` over trunks that have seen all rows."""

    def __init__(
        self, head: LiteHead, spec: EncoderSpec, trunks: dict[str, SeenTrunk], minilm: LastTexts
    ) -> None:
        super().__init__(head, spec, device="cpu", announce=lambda _: None)
        self.trunks = trunks
        self._shared_minilm = minilm

    @cached_property
    def minilm(self) -> LastTexts:
        return self._shared_minilm

    @cached_property
    def images(self) -> ExchangeableImages:
        return ExchangeableImages(self.trunks, self.head)


class RememberingPair:
    """Any pair; its image tower looks at each row once."""

    def __init__(self, pair: DualEncoder, sitting: ShownImages, *, rows: int) -> None:
        self._pair = pair
        self.spec = pair.spec
        self.images: Encoder[Image] = _RememberingTower(pair, sitting, rows=rows)

    @property
    def texts(self) -> TextEncoder:
        return self._pair.texts


class _RememberingTower:
    def __init__(self, pair: DualEncoder, sitting: ShownImages, *, rows: int) -> None:
        self._pair = pair
        self._sitting = sitting
        self._vectors = np.zeros((rows, pair.spec.dim), dtype=np.float32)
        self._known = np.zeros(rows, dtype=np.bool_)

    def encode(self, items: Sequence[Image]) -> Vectors:
        rows = self._sitting.rows(items)
        new = np.flatnonzero(~self._known[rows]).tolist()
        if len(new):
            self._vectors[rows[new]] = self._pair.images.encode(
                [items[position] for position in new]
            )
            self._known[rows[new]] = True
        return self._vectors[rows]


class RememberingMember:
    """A member that learned nothing from the pairs; it looks at each row once."""

    def __init__(self, member: EnsembleMember, sitting: ShownImages) -> None:
        self.name = member.name
        self._member = member
        self._sitting = sitting
        self._known: dict[int, tuple[Vectors, str | None]] = {}

    def predict(self, images: Sequence[Image]) -> Prediction:
        """What the member said, or says now, of pictures that are on show."""
        rows = self._sitting.rows(images).tolist()
        new = [position for position, row in enumerate(rows) if row not in self._known]
        if new:
            said = self._member.predict([images[position] for position in new])
            for number, position in enumerate(new):
                self._known[rows[position]] = (
                    said.vectors[number],
                    said.texts[number] if said.texts is not None else None,
                )
        known = [self._known[row] for row in rows]
        texts = tuple(text for _, text in known if text is not None)
        return Prediction(
            np.stack([vector for vector, _ in known]), texts if len(texts) == len(known) else None
        )
