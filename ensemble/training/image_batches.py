"""Batches of pixels, decoded and resized by threads while the network works."""

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
    """The `rows` that could be read, and their `pixels` (n, 3, height, width), None if n is 0.

    `rejected` are (row, reason) of the other rows.
    """

    rows: Ids
    pixels: Tensor | None
    rejected: list[tuple[int, str]]


def load_batches(batches: Iterable[Ids], load: Callable[[int], Tensor]) -> Iterator[Batch]:
    """Yield each batch of rows as pixels, in order; two batches are prepared ahead.

    Args:
        batches: row numbers.
        load: returns the pixels of a row, in any thread; `ImageRejected` rejects the row.
    """
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[list[tuple[int, Future[Tensor]]]] = deque()
        try:
            for rows in batches:
                waiting.append([(row, pool.submit(load, row)) for row in rows.tolist()])
                if len(waiting) > BATCHES_AHEAD:
                    yield _collect(waiting.popleft())
            while waiting:
                yield _collect(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _collect(pending: list[tuple[int, Future[Tensor]]]) -> Batch:
    import torch

    rows, pixels, rejected = [], [], []
    for row, future in pending:
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
    """Return (3, height, width) pixels of an image file, of a random part if `rng` is given.

    Args:
        path: of the image.
        transform: turns a picture into pixels.
        rng: draws the place and size of the part.
        share: the least share of the area that the part has.

    Raises:
        ImageRejected: the file is not a readable image.
    """
    picture = open_image(path)
    if rng is not None:
        picture = picture.crop(random_box(picture.size, rng, share=share))
    return transform(picture)


def random_box(
    size: tuple[int, int], rng: np.random.Generator, *, share: float
) -> tuple[int, int, int, int]:
    """Return a random box of the picture's shape with at least `share` of its area.

    The box is (left, upper, right, lower) in pixels.
    """
    scale = float(np.sqrt(rng.uniform(share, 1)))
    width, height = (max(round(side * scale), 1) for side in size)
    left = int(rng.integers(0, size[0] - width + 1))
    upper = int(rng.integers(0, size[1] - height + 1))
    return left, upper, left + width, upper + height
