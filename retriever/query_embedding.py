"""Loads and embeds items in batches of bounded memory; a bad item does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from imprompt.core.errors import ImpromptError
from imprompt.core.lookahead import ahead, side_by_side
from imprompt.core.progress import Silent
from imprompt.core.protocols import Progress
from imprompt.core.values import Vectors

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

MAX_BATCH_PIXELS = 32 << 20
"""Pixels after which a batch of pictures is full (4 bytes each in Pillow).

Its last picture may exceed that. As the next batch is loaded while one is encoded, memory holds two
batches and the pictures that `imprompt.core.lookahead.THREADS` threads are decoding.
"""

_SILENT = Silent()


@dataclass(frozen=True, slots=True)
class EmbeddedItems:
    """(n, dim) float32 unit rows in the order of the items, and the errors of failed items by row.

    The row of a failed item is zeros.
    """

    vectors: Vectors
    failed: tuple[tuple[int, ImpromptError], ...]


def embed_rows(
    items: Sequence[Item],
    *,
    load: Callable[[Item], Loaded],
    encode: Callable[[Sequence[Loaded]], Vectors],
    dim: int,
    batch: int,
    progress: Progress = _SILENT,
) -> EmbeddedItems:
    """Return the embeddings of all items; a batch is loaded while the one before is encoded.

    Args:
        load: called by several threads; an `ImpromptError` makes its item fail.
        encode: turns loaded items into (n, dim) unit rows, as an encoder's method does.
        batch: items encoded at once, at most; fewer if they are large pictures.

    Raises:
        EncoderError: the model fails.
    """
    vectors = np.zeros((len(items), dim), dtype=np.float32)
    failed: list[tuple[int, ImpromptError]] = []
    start = 0
    with progress.start("Encoding", len(items)) as task:
        for results in ahead(loaded_batches(items, load, size=batch, pixels=_pixels)):
            loaded: dict[int, Loaded] = {}
            for row, result in enumerate(results, start):
                if isinstance(result, ImpromptError):
                    failed.append((row, result))
                else:
                    loaded[row] = result
            if loaded:
                vectors[[*loaded]] = encode([*loaded.values()])
            start += len(results)
            task.advance(len(results))
    return EmbeddedItems(vectors, tuple(failed))


def loaded_batches(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    *,
    size: int,
    pixels: Callable[[Loaded], int],
) -> Iterator[list[Loaded | ImpromptError]]:
    """Yield what `load` returns for each item, or its error, in order and in batches.

    A batch is full at `size` items or `MAX_BATCH_PIXELS`. `load` is called by several threads. Pass
    the batches to `imprompt.core.lookahead.ahead` to load each while the one before is used.
    """
    batch: list[Loaded | ImpromptError] = []
    n_pixels = 0

    def load_or_error(item: Item) -> Loaded | ImpromptError:
        try:
            return load(item)
        except ImpromptError as error:
            return error

    for result in side_by_side(load_or_error, items):
        batch.append(result)
        if not isinstance(result, ImpromptError):
            n_pixels += pixels(result)
        if len(batch) >= size or n_pixels >= MAX_BATCH_PIXELS:
            yield batch
            batch, n_pixels = [], 0
    if batch:
        yield batch


def _pixels(item: object) -> int:
    """Return the pixels of a picture, and 0 for anything else."""
    width, height = getattr(item, "width", 0), getattr(item, "height", 0)
    return width * height if isinstance(width, int) and isinstance(height, int) else 0
