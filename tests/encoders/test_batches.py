"""Batches: every item once and in its place, for any size that memory allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imprompt.core.errors import EncoderError
from imprompt.core.hub.fetch import silent
from imprompt.core.values import Vectors
from imprompt.encoders.batches import Batches, encodable


def row_of(length: int) -> list[float]:
    return [length, length + 0.5]


@given(
    lengths=st.lists(st.integers(0, 50), max_size=60),
    batch_size=st.integers(1, 9),
    fits=st.integers(1, 9),
)
def test_rows_come_back_in_order(lengths: list[int], batch_size: int, fits: int) -> None:
    """For any lengths, batch size and memory, row i is that of item i, and batches are sorted."""
    batches: list[list[int]] = []

    def encode_batch(batch: list[int]) -> Vectors:
        if len(batch) > fits:
            raise torch.OutOfMemoryError("full")
        batches.append(batch)
        return np.array([row_of(item) for item in batch], dtype=np.float32)

    rows = Batches(batch_size, announce=silent).encode_by_length(
        lengths, lengths, keys=range(len(lengths)), dim=2, encode_batch=encode_batch
    )
    assert rows.shape == (len(lengths), 2)
    assert rows.tolist() == [row_of(length) for length in lengths]
    assert [item for batch in batches for item in batch] == sorted(lengths)
    assert all(len(batch) <= batch_size for batch in batches)
    batches.clear()
    rows = Batches(batch_size, announce=silent).encode(lengths, dim=2, encode_batch=encode_batch)
    assert rows.tolist() == [row_of(length) for length in lengths]
    assert [item for batch in batches for item in batch] == lengths
    assert all(len(batch) <= batch_size for batch in batches)


def test_memory_is_checked_after_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after one that was too large."""
    checks: list[int] = []
    monkeypatch.setattr("imprompt.encoders.batches.FREED.check", lambda: checks.append(tried[-1]))
    tried: list[int] = []
    items = [1] * 9

    def encode_batch(batch: Sequence[int]) -> Vectors:
        tried.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("full")
        return np.array([row_of(item) for item in batch], np.float32)

    Batches(4, announce=silent).encode(items, dim=2, encode_batch=encode_batch)
    assert checks == tried == [4, 2, 2, 2, 2, 1]


@given(items=st.lists(st.integers(0, 6), max_size=40), batch_size=st.integers(1, 5))
def test_items_of_equal_keys_are_encoded_once(items: list[int], batch_size: int) -> None:
    """Each key goes through the model once, by its first item, and every item gets its row."""
    encoded: list[tuple[int, int]] = []

    def encode_batch(batch: list[tuple[int, int]]) -> Vectors:
        encoded.extend(batch)
        return np.array([row_of(item) for item, _ in batch], dtype=np.float32)

    numbered = [(item, place) for place, item in enumerate(items)]
    batches = Batches(batch_size, announce=silent)
    rows = batches.encode_by_length(numbered, items, keys=items, dim=2, encode_batch=encode_batch)
    assert rows.tolist() == [row_of(item) for item in items]
    assert sorted(encoded) == [(item, items.index(item)) for item in sorted(set(items))]


FULL = [
    torch.OutOfMemoryError("full"),
    MemoryError(),
    RuntimeError(
        "err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
    RuntimeError("data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
]
"""As CUDA, Python, and torch on Linux and on other systems say it."""


@pytest.mark.parametrize("full", FULL, ids=["cuda", "python", "linux", "other"])
def test_a_full_memory_halves_the_batch_for_good_and_says_so(full: Exception) -> None:
    """The size that memory allowed is announced once and kept for the next call."""
    said: list[str] = []
    sizes: list[int] = []

    def encode_batch(batch: list[int]) -> Vectors:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise full
        return np.ones((len(batch), 1), dtype=np.float32)

    batches = Batches(8, announce=said.append)
    for _ in range(2):
        batches.encode(range(8), dim=1, encode_batch=encode_batch)
    assert sizes == [8, 4, 4, 4, 4]
    assert batches.batch_size == 4
    assert len(said) == 1
    assert "8" in said[0]
    assert "4" in said[0]


def failing(error: Exception) -> Vectors:
    raise error


def test_one_item_that_does_not_fit_is_an_error_with_a_remedy() -> None:
    """Nothing is left to halve."""
    with pytest.raises(EncoderError, match=r"batch of one.*--device cpu"):
        Batches(2, announce=silent).encode(
            [1, 2, 3], dim=1, encode_batch=lambda _: failing(torch.OutOfMemoryError("full"))
        )


def test_other_failures_are_not_taken_for_a_full_memory() -> None:
    """A bug in a tower shows itself at the first batch."""
    with pytest.raises(RuntimeError, match="shapes"):
        Batches(2, announce=silent).encode(
            [1, 2], dim=1, encode_batch=lambda _: failing(RuntimeError("shapes"))
        )


def test_rows_that_are_not_finite_are_an_error() -> None:
    """NaN never reaches an index."""
    with pytest.raises(EncoderError, match="not finite"):
        Batches(2, announce=silent).encode(
            [1], dim=1, encode_batch=lambda _: np.array([[np.nan]], dtype=np.float32)
        )


@pytest.mark.parametrize(
    ("text", "clean"), [("a\udcffb", "a?b"), ("grün 你好", "grün 你好"), ("", "")]
)
def test_lone_surrogates_are_no_text(text: str, clean: str) -> None:
    """They come from broken file names, and tokenizers refuse them."""
    assert encodable(text) == clean
