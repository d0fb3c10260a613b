"""What is said of batches of images: by this process, or by machines that an predictor stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

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
    """Images that are looked at together."""

    number: int
    paths: tuple[Path, ...]
    ignore_metadata: bool


class BatchPredictions(msgspec.Struct, frozen=True):
    """What was found: for each image, in the order of ids, a float32 row (zeros where it failed)."""

    vectors: bytes
    prompts: list[str]
    how: list[How]
    errors: dict[int, str]


class BatchPredictor(Protocol):
    """Answers batches of images."""

    def predictions(
        self, batches: Sequence[ImageBatch]
    ) -> Iterator[tuple[ImageBatch, BatchPredictions]]:
        """Each batch in one part or several, which come in their order; the batches in any.

        Raises:
            MemberUnavailable: a member failed.
        """
        ...


class LocalPredictor:
    """This process; the next images are read while the ensemble looks at those before."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble

    def predictions(
        self, batches: Sequence[ImageBatch]
    ) -> Iterator[tuple[ImageBatch, BatchPredictions]]:
        for batch, read in ahead((each, part) for each in batches for part in read_images(each)):
            yield batch, _answered(read, self._ensemble)


def predict_batch(batch: ImageBatch, ensemble: Ensemble) -> BatchPredictions:
    """The whole batch, answered here."""
    return joined([_answered(part, ensemble) for part in read_images(batch)])


def joined(parts: Sequence[BatchPredictions]) -> BatchPredictions:
    """The parts of a batch as one."""
    errors: dict[int, str] = {}
    start = 0
    for part in parts:
        errors |= {start + place: reason for place, reason in part.errors.items()}
        start += len(part.how)
    return BatchPredictions(
        vectors=b"".join(part.vectors for part in parts),
        prompts=[prompt for part in parts for prompt in part.prompts],
        how=[how for part in parts for how in part.how],
        errors=errors,
    )


def read_images(batch: ImageBatch) -> Iterator[list[ReadQuestion | ImpromptError]]:
    """The images of a batch, read; large pictures come in several parts."""
    questions = [
        Question(image=path, ignore_metadata=batch.ignore_metadata) for path in batch.paths
    ]
    return loaded_batches(
        questions, read_question, size=len(questions), pixels=lambda read: read.n_pixels
    )


def _answered(read: Sequence[ReadQuestion | ImpromptError], ensemble: Ensemble) -> BatchPredictions:
    """Rows, words and errors of some images: the prompt in the file where there is one, else the ensemble's prediction."""
    readable = [
        result for result in read if isinstance(result, ReadQuestion) and not result.carried
    ]
    predictions = iter(
        ensemble.predict([result.picture for result in readable if result.picture is not None])
    )
    rows = np.zeros((len(read), DIM), dtype=np.float32)
    prompts, how, errors = [""] * len(read), cast("list[How]", ["estimated"] * len(read)), {}
    for place, result in enumerate(read):
        if isinstance(result, ImpromptError):
            how[place], errors[place] = "failed", result.message
        elif result.carried:
            how[place], prompts[place] = result.carried.how, result.carried.prompt
            rows[place] = ensemble.minilm.encode([result.carried.prompt])[0]
        else:
            prediction = next(predictions)
            rows[place], prompts[place] = prediction.vector, prediction.prompt
    return BatchPredictions(rows.tobytes(), prompts, how, errors)
