"""Answers with their explanation: what each member said, with what share, and how near that is to what was answered."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from imprompt.core.errors import ImpromptError, MemberUnavailable, QueryError
from imprompt.core.values import Vectors
from imprompt.ensemble.confidence import ABSTAIN_BELOW
from imprompt.ensemble.ensemble import Contribution, Ensemble, EnsemblePrediction
from imprompt.retriever import Answer, Question, Retriever
from imprompt.retriever.questions import ReadQuestion
from imprompt.retriever.search import read_batches


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an answer is what it is.

    `vector` (384,) is the answer in MiniLM space: the blend, or the embedding of a prompt that the
    file carries. `cosine` is that of the estimated prompt to the blend. `left_out` lists members of
    the blend config that could not vote. `confidence` is the probability that an estimated prompt is
    close to the true one (`imprompt.ensemble.confidence.CLOSE_COSINE`); None where the blend config is
    not calibrated for the index, and for a prompt that the file carries.
    """

    blend_config: str
    contributions: tuple[Contribution, ...]
    left_out: tuple[MemberUnavailable, ...]
    vector: Vectors
    cosine: float
    confidence: float | None = None

    @property
    def close(self) -> bool | None:
        """Whether anything in the corpus seems to be close; None where there is no confidence."""
        return None if self.confidence is None else self.confidence >= ABSTAIN_BELOW

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "blend": self.blend_config,
            "confidence": self.confidence,
            "close": self.close,
            "calibration": "not calibrated" if self.confidence is None else "calibrated",
            "cosine": self.cosine,
            "contributions": [dataclasses.asdict(vote) for vote in self.contributions],
            "left_out": [
                {"member": error.name, "reason": error.reason, "hint": error.hint}
                for error in self.left_out
            ],
            "vector": self.vector.tolist(),
        }


@dataclass(frozen=True, slots=True)
class ExplainedAnswer:
    """An answer whose prompt is the one that the file carries, else the words nearest to the blend."""

    answer: Answer
    explanation: Explanation

    def to_json(self) -> dict[str, Any]:
        """The answer's JSON, and the explanation under "explanation"."""
        return {**self.answer.to_json(), "explanation": self.explanation.to_json()}


def ask_explained(
    questions: Iterable[Question], k: int, *, retriever: Retriever, ensemble: Ensemble
) -> Iterator[ExplainedAnswer | ImpromptError]:
    """One result for each question by image, in order, as its batch is done; see `Retriever.ask`.

    Args:
        questions: each with an image and without a text, which members could not look at.
        k: how many neighbours are shown.

    Raises:
        MemberUnavailable: a member failed.
        QueryError, StoreError, EncoderError: as `Retriever.ask` does.
    """
    begun = time.perf_counter()
    for batch in read_batches(questions):
        yield from explain_batch(batch, k, retriever=retriever, ensemble=ensemble, begun=begun)
        begun = time.perf_counter()


def explain_batch(
    batch: Sequence[ReadQuestion | ImpromptError],
    k: int,
    *,
    retriever: Retriever,
    ensemble: Ensemble,
    begun: float,
) -> Iterator[ExplainedAnswer | ImpromptError]:
    """One result for each question of a batch that was read, in order; what could not be read stays its error.

    Args:
        k: as in `ask_explained`, whose errors are raised.
        begun: the `time.perf_counter` at which reading the batch began.
    """
    pictures = [
        read.picture
        for read in batch
        if isinstance(read, ReadQuestion) and read.picture is not None
    ]
    predictions = iter(ensemble.predict(pictures))
    for read, answer in zip(batch, retriever.answer(batch, k, begun=begun), strict=True):
        if not isinstance(read, ReadQuestion):
            yield read
        elif read.picture is None:
            yield QueryError(
                "A text alone has no explanation: the members look at images.",
                hint="Ask it without --explain.",
            )
        else:
            prediction = next(predictions)
            yield (
                _proven(answer, prediction, ensemble=ensemble)
                if isinstance(answer, Answer)
                else answer
            )


def _proven(
    answer: Answer, prediction: EnsemblePrediction, *, ensemble: Ensemble
) -> ExplainedAnswer:
    confidence = None
    if answer.how != "estimated":
        vector = ensemble.minilm.encode([answer.prompt])[0]
    else:
        vector = prediction.vector
        confidence = (
            ensemble.calibration.probability(prediction.confidence_features)
            if ensemble.calibration
            else None
        )
        answer = dataclasses.replace(answer, prompt=prediction.prompt)
    explanation = Explanation(
        ensemble.blend_config.name,
        prediction.contributions,
        ensemble.left_out,
        vector,
        prediction.cosine,
        confidence,
    )
    return ExplainedAnswer(answer, explanation)
