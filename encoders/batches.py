"""Batches for the towers: as large as the memory allows, and for texts sorted by length.

A text tower pays for the longest text of its batch, so texts of like length belong together: with
ViT-B-32 on two cores, sorting and cutting lifted 30 prompts a second to 75. Which texts share a
batch is a function of their lengths alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imprompt.core.errors import EncoderError
from imprompt.core.hub.fetch import Announce
from imprompt.core.values import Vectors
from imprompt.encoders.memory import FREED, out_of_memory

Item = TypeVar("Item")

TEXTS_A_BATCH = 64
IMAGES_A_BATCH = 32

_TIMED_BATCHES = 4
_TIMED_TEXTS = 16
_LONGEST_TEXT = 5_000
"""Characters of a text that are tokenized. The time of CLIP's tokenizer grows with the square of a
word's length: 1.7 s for 8,000 letters."""


def encodable(text: str) -> str:
    """Return the text with "?" for each lone surrogate, which tokenizers refuse.

    They come from broken file names and undecodable arguments.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def limited_text(text: str) -> str:
    """Return the part of a text that is tokenized: at most 5,000 characters, `encodable`."""
    if len(text) > _LONGEST_TEXT:  # open_clip's tokenizers collapse white space, too
        text = " ".join(text.split())[:_LONGEST_TEXT]
    return encodable(text)


def seconds_each(encode: Callable[[Sequence[str]], object], texts: Sequence[str]) -> float:
    """Return the seconds per text on this machine, measured on a few texts of all lengths."""
    ordered = sorted(texts, key=len)
    encode(ordered[:1])  # loads the model
    seconds, encoded = 0.0, 0
    for part in range(_TIMED_BATCHES):
        start = len(ordered) * part // _TIMED_BATCHES
        batch = ordered[start : start + _TIMED_TEXTS]
        began = time.perf_counter()
        encode(batch)
        seconds += time.perf_counter() - began
        encoded += len(batch)
    return seconds / max(encoded, 1)


class Batches:
    """Encodes items in batches, and halves their size for good when one does not fit into memory.

    Args:
        batch_size: items a batch, at least 1.
        announce: takes a line for the user when the size is halved.
    """

    def __init__(self, batch_size: int, *, announce: Announce) -> None:
        self.batch_size = batch_size
        self._announce = announce

    def encode(
        self,
        items: Sequence[Item],
        *,
        dim: int,
        encode_batch: Callable[[list[Item]], Vectors],
        ends: NDArray[np.int64] | None = None,
    ) -> Vectors:
        """Return (n, dim) float32 rows in the order given; no items give (0, dim).

        Args:
            items: any number of items.
            dim: columns of a row.
            encode_batch: returns the rows of one batch, in its order.
            ends: (n,) for each item, where at the latest a batch that begins with it ends.

        Raises:
            EncoderError: a row is not finite, or one item alone does not fit into memory.
        """
        rows = np.empty((len(items), dim), dtype=np.float32)
        begin = 0
        while begin < len(items):
            end = (
                begin + self.batch_size
                if ends is None
                else min(begin + self.batch_size, ends[begin])
            )
            batch = list(items[begin:end])
            try:
                rows[begin : begin + len(batch)] = encode_batch(batch)
            except (MemoryError, RuntimeError) as error:
                self._halve(len(batch), error)
            else:
                begin += len(batch)
            FREED.check()
        if not np.isfinite(rows).all():
            raise EncoderError(
                "the model returns values that are not finite.",
                hint="Its weights may be damaged; on a GPU try --device cpu.",
            )
        return rows

    def encode_by_length(
        self,
        items: Sequence[Item],
        lengths: ArrayLike,
        *,
        keys: Sequence[Hashable],
        dim: int,
        encode_batch: Callable[[list[Item]], Vectors],
        one_length: bool = False,
    ) -> Vectors:
        """Return what `encode` returns, but encode short items first and equal ones once.

        Args:
            items: any number of items.
            lengths: (n,) what the items are sorted by; equal lengths keep their order.
            keys: (n,) of the items; of equal keys, only the first item is encoded.
            dim, encode_batch: see `encode`.
            one_length: let all items of a batch have one length, so that none needs padding.

        Raises:
            EncoderError: see `encode`.
        """
        first_of: dict[Hashable, int] = {}
        twins = np.array(
            [first_of.setdefault(key, index) for index, key in enumerate(keys)], dtype=np.int64
        )
        lengths = np.asarray(lengths, dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        order = order[twins[order] == order]
        ends = np.searchsorted(lengths[order], lengths[order], side="right") if one_length else None
        rows = self.encode(
            [items[index] for index in order], dim=dim, encode_batch=encode_batch, ends=ends
        )
        row_of = np.empty(len(items), dtype=np.int64)
        row_of[order] = np.arange(len(order))
        return rows[row_of[twins]]

    def _halve(self, n_items: int, error: MemoryError | RuntimeError) -> None:
        if not out_of_memory(error):
            raise error
        if n_items == 1:
            raise EncoderError(
                "a batch of one does not fit into memory together with the model.",
                hint="On a GPU, encode on the CPU: --device cpu",
            ) from error
        self.batch_size = n_items // 2
        if (torch := sys.modules.get("torch")) is not None:
            torch.cuda.empty_cache()
            if torch.backends.mps.is_available():
                torch.mps.empty_cache()
        self._announce(
            f"A batch of {n_items} does not fit into memory; continuing with {self.batch_size}."
        )
