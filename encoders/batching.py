"""Batches of items of like length: sorted, cut, encoded, and put back in the order given.

A text tower pays for the longest text of its batch, so texts of like length belong together: with ViT-B-32 on two cores,
sorting and cutting lifted 30 prompts a second to 75. Which items share a batch is a function of their lengths alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from core.errors import EncoderError
from core.fetch import Announce
from core.values import Vectors

Item = TypeVar("Item")


def encode_by_length(
    items: Sequence[Item],
    lengths: ArrayLike,
    *,
    dim: int,
    batch_size: int,
    encode_batch: Callable[[list[Item]], Vectors],
    announce: Announce,
) -> Vectors:
    """(n, dim) float32 rows in the order of `items`, encoded in batches of like length, short ones first.

    Args:
        items: any number of items; none gives (0, dim).
        lengths: (n,) what the items are sorted by; equal ones keep their order.
        dim: columns of a row.
        batch_size: items a batch. Where a batch does not fit into the accelerator's memory, it and all that follow are halved,
            and `announce` is told.
        encode_batch: the rows of one batch, in its order.
        announce: takes a line for the user.

    Raises:
        EncoderError: one item alone does not fit into the accelerator's memory.
    """
    rows = np.empty((len(items), dim), dtype=np.float32)
    order = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    begin = 0
    while begin < len(order):
        taken = order[begin : begin + batch_size]
        try:
            rows[taken] = encode_batch([items[position] for position in taken])
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if len(taken) == 1:
                raise EncoderError(
                    "the accelerator's memory does not hold a batch of one.", hint="Encode on the processor: --device cpu"
                ) from error
            batch_size = len(taken) // 2
            announce(f"The accelerator's memory is full at {len(taken)} items a batch; going on with {batch_size}.")
            continue
        begin += len(taken)
    return rows


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    if not isinstance(error, torch.OutOfMemoryError):
        return False
    torch.cuda.empty_cache()
    return True
