"""Pictures as batches of pixels: decoded and resized by other threads while the network is at work."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.errors import ImageRejected
from imprompt.core.values import Ids
from imprompt.images.decode import open_image

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

BATCHES_AHEAD = 2
_WORKERS = min(os.cpu_count() or 1, 16)


@dataclass(frozen=True, slots=True)
class Batch:
    """The `rows` that could be read, their `pixels` (n, 3, height, width), None for no rows, and (row, reason) of the others."""

    rows: Ids
    pixels: Tensor | None
    rejected: list[tuple[int, str]]


def load_batches(batches: Iterable[Ids], load: Callable[[int], Tensor]) -> Iterator[Batch]:
    """Each batch of rows as pixels, in order; two batches are made ready while one is used.

    Args:
        batches: row numbers.
        load: the pixels of a row; called by several threads. `ImageRejected` leaves the row out.
    """
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[list[tuple[int, Future[Tensor]]]] = deque()
        try:
            for rows in batches:
                waiting.append([(row, pool.submit(load, row)) for row in rows.tolist()])
                if len(waiting) > BATCHES_AHEAD:
                    yield _gathered(waiting.popleft())
            while waiting:
                yield _gathered(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _gathered(coming: list[tuple[int, Future[Tensor]]]) -> Batch:
    import torch

    rows, pixels, rejected = [], [], []
    for row, future in coming:
        try:
            pixels.append(future.result())
            rows.append(row)
        except ImageRejected as error:
            rejected.append((row, error.reason))
    return Batch(np.array(rows, dtype=np.int64), torch.stack(pixels) if pixels else None, rejected)


def load_pixels(
    path: Path,
    transform: Callable[[Image], Tensor],
    *,
    rng: np.random.Generator | None,
    share: float,
) -> Tensor:
    """(3, height, width) pixels of an image file; with `rng`, of a random part of it.

    Args:
        path: of the image.
        transform: of a picture into pixels.
        rng: where the part lies and how large it is; None takes the whole picture.
        share: of the area that the part has at least.

    Raises:
        ImageRejected: it cannot be read.
    """
    picture = open_image(path)
    if rng is not None:
        picture = picture.crop(random_box(picture.size, rng, share=share))
    return transform(picture)


def random_box(
    size: tuple[int, int], rng: np.random.Generator, *, share: float
) -> tuple[int, int, int, int]:
    """A box of the picture's shape that holds at least `share` of its area; left, upper, right, lower in pixels."""
    scale = float(np.sqrt(rng.uniform(share, 1)))
    width, height = (max(round(side * scale), 1) for side in size)
    left = int(rng.integers(0, size[0] - width + 1))
    upper = int(rng.integers(0, size[1] - height + 1))
    return left, upper, left + width, upper + height
