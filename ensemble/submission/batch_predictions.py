"""Predictions for batches of images, made in this process or by a predictor on other machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np

from imprompt.core.errors import ImpromptError
from imprompt.core.lookahead import ahead
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.submission.formats import DIM
from imprompt.retriever import Question
from imprompt.retriever.query_embedding import loaded_batches
from imprompt.retriever.questions import ReadQuestion, read_question

How = Literal["estimated", "exact", "carried", "failed", "missing"]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Images that are predicted together; without `prompts` only their vectors are."""

    number: int
    paths: tuple[Path, ...]
    ignore_metadata: bool
    prompts: bool = True


class BatchPredictions(msgspec.Struct, frozen=True):
    """The prediction for each image of a batch, in order.

    `vectors` are the bytes of float32 rows (zeros for a failed image); `errors` are reasons by
    position in the batch.
    """

    vectors: bytes
    prompts: list[str]
    how: list[How]
    errors: dict[int, str]


class BatchPredictor(Protocol):
    """Predicts batches of images."""

    def predictions(
        self, batches: Sequence[ImageBatch]
    ) -> Iterator[tuple[ImageBatch, BatchPredictions]]:
        """Yield each batch in one or more parts; batches in any order, parts of one in order.

        Raises:
            MemberUnavailable: a member failed.
        """
        ...


class LocalPredictor:
    """Predicts in this process, and reads the next images meanwhile."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble

    def predictions(
        self, batches: Sequence[ImageBatch]
    ) -> Iterator[tuple[ImageBatch, BatchPredictions]]:
        """See `BatchPredictor.predictions`."""
        parts = ((batch, part) for batch in batches for part in read_images(batch))
        for batch, part in ahead(parts):
            yield batch, _predict_part(part, self._ensemble, prompts=batch.prompts)


def predict_batch(batch: ImageBatch, ensemble: Ensemble) -> BatchPredictions:
    """Return the predictions for a whole batch, made in this process."""
    return joined(
        [_predict_part(part, ensemble, prompts=batch.prompts) for part in read_images(batch)]
    )


def joined(parts: Sequence[BatchPredictions]) -> BatchPredictions:
    """Return the parts of a batch as one."""
    errors: dict[int, str] = {}
    start = 0
    for part in parts:
        errors |= {start + position: reason for position, reason in part.errors.items()}
        start += len(part.how)
    return BatchPredictions(
        vectors=b"".join(part.vectors for part in parts),
        prompts=[prompt for part in parts for prompt in part.prompts],
        how=[how for part in parts for how in part.how],
        errors=errors,
    )


def read_images(batch: ImageBatch) -> Iterator[list[ReadQuestion | ImpromptError]]:
    """Yield the images of a batch as they are read, in several parts where they are large."""
    questions = [
        Question(image=path, ignore_metadata=batch.ignore_metadata) for path in batch.paths
    ]
    return loaded_batches(
        questions, read_question, size=len(questions), pixels=lambda read: read.n_pixels
    )


def _predict_part(
    reads: Sequence[ReadQuestion | ImpromptError], ensemble: Ensemble, *, prompts: bool
) -> BatchPredictions:
    """Return the prompt that a file carries, where there is one, else the ensemble's prediction.

    Without `prompts`, none is composed, and those predicted are empty.
    """
    pictures = [
        read.picture
        for read in reads
        if isinstance(read, ReadQuestion) and not read.carried and read.picture is not None
    ]
    if prompts:
        predicted = [(one.vector, one.prompt) for one in ensemble.predict(pictures)]
    else:
        predicted = [(vector, "") for vector in ensemble.blend(pictures)]
    predictions = iter(predicted)
    rows = np.zeros((len(reads), DIM), dtype=np.float32)
    texts, errors = [""] * len(reads), {}
    how: list[How] = ["estimated"] * len(reads)
    for position, read in enumerate(reads):
        if isinstance(read, ImpromptError):
            how[position], errors[position] = "failed", read.message
        elif read.carried:
            how[position], texts[position] = read.carried.how, read.carried.prompt
            rows[position] = ensemble.minilm.encode([read.carried.prompt])[0]
        else:
            rows[position], texts[position] = next(predictions)
    return BatchPredictions(rows.tobytes(), texts, how, errors)
