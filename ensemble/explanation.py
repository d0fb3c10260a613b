"""Explained answers: what each member contributed, and how sure the ensemble is."""

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
    """How an answer came about.

    `vector` (384,) is the answer in MiniLM space: the blend, or the embedding of the prompt that
    the file carries. `cosine` is that of the estimated prompt with the blend. `left_out` lists
    members that were not available. `confidence` is the probability that an estimated prompt is
    close to the true one (`imprompt.ensemble.confidence.CLOSE_COSINE`); it is None for a prompt
    from the file, and where the blend config is not calibrated for the index.
    """

    blend_config: str
    contributions: tuple[Contribution, ...]
    left_out: tuple[MemberUnavailable, ...]
    vector: Vectors
    cosine: float
    confidence: float | None = None

    @property
    def close(self) -> bool | None:
        """Return whether something in the corpus is likely close; None without a confidence."""
        return None if self.confidence is None else self.confidence >= ABSTAIN_BELOW

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "blend": self.blend_config,
            "confidence": self.confidence,
            "close": self.close,
            "calibration": "not calibrated" if self.confidence is None else "calibrated",
            "cosine": self.cosine,
            "contributions": [dataclasses.asdict(part) for part in self.contributions],
            "left_out": [
                {"member": error.name, "reason": error.reason, "hint": error.hint}
                for error in self.left_out
            ],
            "vector": self.vector.tolist(),
        }


@dataclass(frozen=True, slots=True)
class ExplainedAnswer:
    """An answer and its explanation; the prompt is the file's, or the text nearest to the blend."""

    answer: Answer
    explanation: Explanation

    def nearest(self, k: int) -> ExplainedAnswer:
        """Return the same with the k nearest neighbours only."""
        return dataclasses.replace(self, answer=self.answer.nearest(k))

    def to_json(self) -> dict[str, Any]:
        """Return the answer's JSON, with the explanation under "explanation"."""
        return {**self.answer.to_json(), "explanation": self.explanation.to_json()}


def ask_explained(
    questions: Iterable[Question], k: int, *, retriever: Retriever, ensemble: Ensemble
) -> Iterator[ExplainedAnswer | ImpromptError]:
    """Yield one result for each question in order, batch by batch; see `Retriever.ask`.

    Args:
        questions: each with an image; a text alone is refused, as members need an image.
        k: the number of neighbours in an answer.

    Raises:
        MemberUnavailable: a member failed.
        QueryError, StoreError, EncoderError: see `Retriever.ask`.
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
    """Yield one result for each item of a batch in order; errors of reading are passed through.

    Args:
        k: as in `ask_explained`, which also lists the errors.
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
                "A text alone cannot be explained: the members need an image.",
                hint="Ask without --explain.",
            )
        else:
            prediction = next(predictions)
            if isinstance(answer, Answer):
                yield _explained(answer, prediction, ensemble=ensemble)
            else:
                yield answer


def _explained(
    answer: Answer, prediction: EnsemblePrediction, *, ensemble: Ensemble
) -> ExplainedAnswer:
    vector, confidence = prediction.vector, None
    if answer.how != "estimated":
        vector = ensemble.minilm.encode([answer.prompt])[0]
    else:
        answer = dataclasses.replace(answer, prompt=prediction.prompt)
        if ensemble.calibration is not None:
            confidence = ensemble.calibration.probability(prediction.confidence_features)
    explanation = Explanation(
        blend_config=ensemble.blend_config.name,
        contributions=prediction.contributions,
        left_out=ensemble.left_out,
        vector=vector,
        cosine=prediction.cosine,
        confidence=confidence,
    )
    return ExplainedAnswer(answer, explanation)
