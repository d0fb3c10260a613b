"""Caches with explicit keys, for work that several callers need done once.

A cache hands out the object that it keeps, so callers must not change it. Threads may share one:
at worst a result is computed twice.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import DualEncoder, TextEncoder
from imprompt.core.values import EncoderSpec, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.encoders.minilm import MiniLM

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchCache(Generic[Item, Result]):
    """A function of a batch that keeps the results of its last batches.

    Args:
        compute: makes the result of a batch.
        key: of a batch; equal keys mean equal results. `tuple` compares texts, `image_keys` images.
        n_batches: how many results to keep.
        max_items: results of longer batches are not kept.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Result],
        *,
        key: Callable[[Sequence[Item]], Hashable],
        n_batches: int = 1,
        max_items: int = sys.maxsize,
    ) -> None:
        self._compute = compute
        self._key = key
        self._n_batches = n_batches
        self._max_items = max_items
        self._entries: tuple[tuple[Hashable, Result], ...] = ()

    def __call__(self, items: Sequence[Item]) -> Result:
        """Return the result of a batch, computed unless it is one of the last ones."""
        key = self._key(items)
        entries = self._entries  # read once: another thread may replace it
        for known, result in entries:
            if known == key:
                return result
        result = self._compute(items)
        if len(items) <= self._max_items:
            self._entries = ((key, result), *entries)[: self._n_batches]
        return result


def token_cache(tokenize: Callable[[Sequence[str]], Result]) -> BatchCache[str, Result]:
    """Return a tokenizer that keeps the tokens of its last two batches of texts, unless very long.

    Two, because one thread asks for the lengths of the next texts while another one encodes these.
    """
    return BatchCache(tokenize, key=tuple, n_batches=2, max_items=8192)


class ItemCache(Generic[Item, Result]):
    """A function of items that computes each once and keeps all results by the items' keys.

    Args:
        compute: makes the results of some items, one each.
        key: of an item; equal keys mean equal results.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Iterable[Result]],
        *,
        key: Callable[[Item], Hashable],
    ) -> None:
        self._compute = compute
        self._key = key
        self._results: dict[Hashable, Result] = {}

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        """Return the items' results in their order; those without one are computed together."""
        keys = [self._key(item) for item in items]
        new: dict[Hashable, Item] = {}
        for key, item in zip(keys, items, strict=True):
            if key not in self._results:
                new.setdefault(key, item)
        if new:
            self._results.update(zip(new, self._compute(list(new.values())), strict=True))
        return [self._results[key] for key in keys]


class ObjectKey:
    """A key of one object, unequal to every other key, even after the object is gone.

    It does not keep the object alive, and unlike an `id` it is never reused. Comparing pictures by
    their pixels instead would cost more than it saves.
    """

    __slots__ = ("_id", "_reference")

    def __init__(self, item: object) -> None:
        self._reference = weakref.ref(item)
        self._id = id(item)

    def __eq__(self, other: object) -> bool:
        item = self._reference()
        return isinstance(other, ObjectKey) and item is not None and item is other._reference()

    def __hash__(self) -> int:
        return self._id


def image_keys(images: Sequence[Image]) -> tuple[ObjectKey, ...]:
    """Return the key of a batch of images: equal for the same objects in the same order."""
    return tuple(map(ObjectKey, images))


class CachedTexts:
    """MiniLM with the vectors of its last texts, so that two spaces made of them cost one pass."""

    def __init__(self, minilm: MiniLM) -> None:
        self._minilm = minilm
        self._rows = BatchCache(minilm.encode, key=tuple)

    @property
    def spec(self) -> EncoderSpec:
        return self._minilm.spec

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, 384) float32 unit rows in the order given; the caller may change them."""
        return self._rows(items).copy()

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text before truncation, special tokens included."""
        return self._minilm.token_lengths(texts)

    def provenance(self) -> Mapping[str, Any]:
        """Return how the vectors are computed."""
        return self._minilm.provenance()


class CachedImages:
    """An image tower behind a cache."""

    def __init__(self, encode: Callable[[Sequence[Image]], Vectors]) -> None:
        self._encode = encode

    def encode(self, items: Sequence[Image]) -> Vectors:
        """Return (n, dim) unit rows in the order given, not to be changed."""
        return self._encode(items)


class CachedEncoder:
    """A dual encoder whose image tower is used through a cache and loaded at its first use.

    Args:
        encoder: the encoder behind the cache.
        encode_images: the cache; None makes one that keeps the rows of the last batch.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        encode_images: Callable[[Sequence[Image]], Vectors] | None = None,
    ) -> None:
        self._encoder = encoder
        self.spec = encoder.spec
        self.images = CachedImages(
            encode_images
            or BatchCache(lambda images: encoder.images.encode(images), key=image_keys)
        )

    @property
    def texts(self) -> TextEncoder:
        return self._encoder.texts
