"""Items of which some cannot be read, as vectors, a batch at a time and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from imprompt.core.errors import ImpromptError
from imprompt.core.lookahead import ahead, side_by_side
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.values import Vectors

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

MAX_BATCH_PIXELS = 32 << 20
"""Pictures of one batch hold at most this many pixels and one picture more (4 bytes each in Pillow). A batch is read while the one
before is encoded, so twice as many are held, and what `imprompt.core.lookahead.THREADS` threads are decoding."""


@dataclass(frozen=True, slots=True)
class EmbeddedQuestions:
    """`vectors` (n, dim) float32, a unit row for each item in its place; zeros for an item in `failed`, with its error."""

    vectors: Vectors
    failed: tuple[tuple[int, ImpromptError], ...]


def embed_rows(
    items: Sequence[Item],
    *,
    load: Callable[[Item], Loaded],
    encode: Callable[[Sequence[Loaded]], Vectors],
    dim: int,
    batch: int,
    progress: Progress = SILENT,
) -> EmbeddedQuestions:
    """Load and encode items, a batch while the one before is encoded; one that cannot be loaded does not stop the others.

    Args:
        load: may raise an ImpromptError, which is that item's failure; called by several threads.
        encode: loaded items to (n, dim) unit rows, an encoder's method.
        dim: of the vectors.
        batch: how many loaded items are encoded at once, at most; fewer where they are large
            pictures.
    """
    vectors = np.zeros((len(items), dim), dtype=np.float32)
    failed: list[tuple[int, ImpromptError]] = []
    start = 0
    with progress.start("Encoding", len(items)) as task:
        for results in ahead(loaded_batches(items, load, size=batch, pixels=_pixels)):
            rows = [
                row
                for row, result in enumerate(results, start)
                if not isinstance(result, ImpromptError)
            ]
            failed.extend(
                (row, result)
                for row, result in enumerate(results, start)
                if isinstance(result, ImpromptError)
            )
            if rows:
                vectors[rows] = encode(
                    [result for result in results if not isinstance(result, ImpromptError)]
                )
            start += len(results)
            task.advance(len(results))
    return EmbeddedQuestions(vectors, tuple(failed))


def loaded_batches(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    *,
    size: int,
    pixels: Callable[[Loaded], int],
) -> Iterator[list[Loaded | ImpromptError]]:
    """Every item's outcome, loaded or failed, in order and in lists of at most `size` items or `MAX_BATCH_PIXELS`.

    `load` is called by several threads. `imprompt.core.lookahead.ahead` of this reads a batch while
    the one before is used.
    """
    batch: list[Loaded | ImpromptError] = []
    held = 0

    def outcome(item: Item) -> Loaded | ImpromptError:
        try:
            return load(item)
        except ImpromptError as error:
            return error

    for result in side_by_side(outcome, items):
        batch.append(result)
        held += 0 if isinstance(result, ImpromptError) else pixels(result)
        if len(batch) >= size or held >= MAX_BATCH_PIXELS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _pixels(item: object) -> int:
    """Pictures count by their pixels, anything else by nothing."""
    width, height = getattr(item, "width", 0), getattr(item, "height", 0)
    return width * height if isinstance(width, int) and isinstance(height, int) else 0
