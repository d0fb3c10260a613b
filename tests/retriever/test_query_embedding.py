"""embed_rows: rows stay in step with the items, failed ones are zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from imprompt.core.errors import CorpusError, EncoderError, ImpromptError
from imprompt.core.values import Vectors
from imprompt.retriever.query_embedding import embed_rows


def load(item: int) -> float:
    if item < 0:
        raise CorpusError(f"{item} is below zero.")
    return float(item)


def test_failed_items_are_zeros_in_their_place() -> None:
    """Row i is item i, whatever the batch; the error stands with the row's number."""
    sizes: list[int] = []

    def encode(items: Sequence[float]) -> Vectors:
        sizes.append(len(items))
        return np.array([[item, 1] for item in items], dtype=np.float32)

    items = [-1, 3, 4, -5, 6, -7, -8, 9]
    done = embed_rows(items, load=load, encode=encode, dim=2, batch=3)
    np.testing.assert_array_equal(
        done.vectors, [[0, 0], [3, 1], [4, 1], [0, 0], [6, 1], [0, 0], [0, 0], [9, 1]]
    )
    assert [row for row, _ in done.failed] == [0, 3, 5, 6]
    assert all(isinstance(error, ImpromptError) for _, error in done.failed)
    assert sizes == [2, 1, 1]


def test_nothing_gives_no_rows() -> None:
    """(0, dim), and the encoder is not called."""

    def encode(items: Sequence[float]) -> Vectors:
        raise AssertionError(items)

    assert embed_rows([], load=load, encode=encode, dim=5, batch=3).vectors.shape == (0, 5)
    assert embed_rows([-1], load=load, encode=encode, dim=5, batch=3).vectors.shape == (1, 5)


def test_an_error_of_the_encoder_is_not_an_items() -> None:
    """A model that fails ends the run."""

    def encode(items: Sequence[float]) -> Vectors:
        raise EncoderError("no memory.")

    with pytest.raises(EncoderError):
        embed_rows([1], load=load, encode=encode, dim=2, batch=1)
