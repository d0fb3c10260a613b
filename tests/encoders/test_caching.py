"""Caches: each text and picture is encoded once, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from imprompt.core.values import Vectors
from imprompt.encoders.caching import BatchCache, ItemCache, image_keys, token_cache
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.encoders.minilm import OnnxMiniLM, load_minilm
from imprompt.encoders.registry import output_encoder

TEXTS = ["a castle above the clouds", "portrait of an old fisherman"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches of texts that MiniLM encodes from now on."""
    sizes: list[int] = []
    encode = OnnxMiniLM.encode

    def counted(self: OnnxMiniLM, items: Sequence[str]) -> Vectors:
        sizes.append(len(items))
        return encode(self, items)

    monkeypatch.setattr(OnnxMiniLM, "encode", counted)
    return sizes


def test_two_spaces_of_one_network_cost_one_pass(passes: list[int]) -> None:
    """For both spaces of the same texts MiniLM runs once, and rows equal those of separate runs."""
    encoder = load_lite()
    minilm = output_encoder(encoder)
    centred, plain = encoder.texts.encode(TEXTS), minilm.encode(tuple(TEXTS))
    assert passes == [2]
    np.testing.assert_array_equal(plain, load_minilm().encode(TEXTS))
    np.testing.assert_array_equal(centred, load_lite().texts.encode(TEXTS))
    minilm.encode(TEXTS[:1])
    assert passes[-1] == 1, "other texts are encoded"


def test_a_caller_may_change_what_it_got(passes: list[int]) -> None:
    """The cached rows are not the ones that a caller gets."""
    minilm = output_encoder(load_lite())
    first = minilm.encode(TEXTS)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(minilm.encode(TEXTS), kept)
    assert passes == [2]


def test_pictures_are_looked_at_once() -> None:
    """The same objects hit the cache; equal objects and parts of the batch miss it."""
    seen: list[int] = []

    def look(pictures: Sequence[Image.Image]) -> int:
        seen.append(len(pictures))
        return len(seen)

    last = BatchCache(look, key=image_keys)
    pictures = [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))]
    assert [last(pictures), last(list(pictures))] == [1, 1]
    assert [
        last(pictures[:1]),
        last(pictures[::-1]),
        last([picture.copy() for picture in pictures]),
    ] == [2, 3, 4]


def test_pictures_are_not_kept_alive() -> None:
    """A cached batch takes no memory for its pictures."""
    import weakref

    last: BatchCache[Image.Image, int] = BatchCache(len, key=image_keys)
    picture = Image.new("RGB", (4, 4))
    gone = weakref.ref(picture)
    last([picture])
    del picture
    assert gone() is None


def test_items_are_computed_once() -> None:
    """Only items of new keys are computed, once each; results come in the order given."""
    batches: list[list[str]] = []

    def compute(items: Sequence[str]) -> list[int]:
        batches.append(list(items))
        return [len(item) for item in items]

    lengths = ItemCache(compute, key=str.lower)
    assert lengths(["a", "bb", "A"]) == [1, 2, 1]
    assert lengths(["ccc", "BB", "a"]) == [3, 2, 1]
    assert lengths(["a"]) == [1]
    assert batches == [["a", "bb"], ["ccc"]]


def test_texts_are_tokenized_once_for_two_callers() -> None:
    """The last two lists of texts are cached by content; long lists are not."""
    asked: list[int] = []

    def tokenize(texts: Sequence[str]) -> list[int]:
        asked.append(len(texts))
        return [len(text) for text in texts]

    tokens = token_cache(tokenize)
    assert tokens(["a", "bb"]) == [1, 2]
    assert tokens(["ccc"]) == [3]
    assert tokens(("a", "bb")) == [1, 2]
    assert asked == [2, 1]
    assert tokens(["dddd"]) == [4]
    assert tokens(["a", "bb"]) == [1, 2]
    assert asked == [2, 1, 1, 2]
    many = ["e"] * 10_000
    assert tokens(many) == tokens(many) == [1] * 10_000
    assert asked == [2, 1, 1, 2, 10_000, 10_000]


def test_lite_looks_once_for_both_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """`encode` and `output` of the same pictures share the trunk's pass."""
    from imprompt.encoders.efficientnet import Activations, EfficientNetLite

    looks: list[int] = []
    activations = EfficientNetLite.activations

    def counted(self: EfficientNetLite, images: Sequence[Image.Image]) -> Activations:
        looks.append(len(images))
        return activations(self, images)

    monkeypatch.setattr(EfficientNetLite, "activations", counted)
    encoder: LiteEncoder = load_lite()
    picture = [Image.new("RGB", (40, 40), "teal")]
    encoder.images.encode(picture)
    encoder.images.output(picture)
    assert looks == [1, 1]  # one look of each trunk
