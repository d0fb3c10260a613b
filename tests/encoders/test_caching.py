"""What two users of one network ask alike is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from imprompt.core.values import Vectors
from imprompt.encoders.caching import LastPictures
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.encoders.minilm import MiniLM, load_minilm
from imprompt.encoders.registry import output_encoder

TEXTS = ["a castle above the clouds", "portrait of an old fisherman"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches of texts that MiniLM encodes from now on."""
    sizes: list[int] = []
    encode = MiniLM.encode

    def counted(self: MiniLM, items: Sequence[str]) -> Vectors:
        sizes.append(len(items))
        return encode(self, items)

    monkeypatch.setattr(MiniLM, "encode", counted)
    return sizes


def test_two_spaces_of_one_network_cost_one_pass(passes: list[int]) -> None:
    """Index space and output space of the same texts:

    MiniLM runs once, and both are what they are alone.
    """
    pair = load_lite()
    minilm = output_encoder(pair)
    centred, plain = pair.texts.encode(TEXTS), minilm.encode(tuple(TEXTS))
    assert passes == [2]
    np.testing.assert_array_equal(plain, load_minilm().encode(TEXTS))
    np.testing.assert_array_equal(centred, load_lite().texts.encode(TEXTS))
    minilm.encode(TEXTS[:1])
    assert passes[-1] == 1, "other texts are encoded"


def test_a_caller_may_change_what_it_got(passes: list[int]) -> None:
    """The vectors that are kept are not the ones that were handed out."""
    minilm = output_encoder(load_lite())
    first = minilm.encode(TEXTS)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(minilm.encode(TEXTS), kept)
    assert passes == [2]


def test_pictures_are_looked_at_once() -> None:
    """The same objects are remembered, equal ones and parts of the batch are not."""
    seen: list[int] = []

    def look(pictures: Sequence[Image.Image]) -> int:
        seen.append(len(pictures))
        return len(seen)

    last = LastPictures(look)
    pictures = [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))]
    assert [last(pictures), last(list(pictures))] == [1, 1]
    assert [
        last(pictures[:1]),
        last(pictures[::-1]),
        last([picture.copy() for picture in pictures]),
    ] == [2, 3, 4]


def test_pictures_are_not_kept_alive() -> None:
    """CachingMember a batch costs no memory for its pictures."""
    import weakref

    last = LastPictures(len)
    picture = Image.new("RGB", (4, 4))
    gone = weakref.ref(picture)
    last([picture])
    del picture
    assert gone() is None


def test_lite_looks_once_for_both_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """`encode` and `output` of the same pictures share the trunk's pass."""
    from imprompt.encoders.efficientnet import Activations, EfficientNetLite

    looks: list[int] = []
    activations = EfficientNetLite.activations

    def counted(self: EfficientNetLite, images: Sequence[Image.Image]) -> Activations:
        looks.append(len(images))
        return activations(self, images)

    monkeypatch.setattr(EfficientNetLite, "activations", counted)
    pair: LiteEncoder = load_lite()
    picture = [Image.new("RGB", (40, 40), "teal")]
    pair.images.encode(picture)
    pair.images.output(picture)
    assert looks == [1, 1]  # one look of each trunk
