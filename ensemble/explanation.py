"""Answers with their proof: what each member said, with what share, and how near that is to what was answered."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from imprompt.core.errors import ImpromptError, MemberUnavailable, QueryError
from imprompt.core.values import Vectors
from imprompt.ensemble.confidence import ABSTAIN_BELOW
from imprompt.ensemble.ensemble import Ensemble, Verdict, Vote
from imprompt.retriever import Answer, Question, Retriever
from imprompt.retriever.questions import ReadQuestion
from imprompt.retriever.search import read_batches


@dataclass(frozen=True, slots=True)
class Proof:
    """Why an answer is what it is.

    `vector` (384,) is the answer in MiniLM space: the blend, or the embedding of a prompt that the
    file carries. `cosine` is that of the estimated prompt to the blend. `left_out` lists members of
    the recipe that could not vote. `confidence` is the probability that an estimated prompt is
    close to the true one (`imprompt.ensemble.confidence.CLOSE_COSINE`); None where the recipe is
    not calibrated for the index, and for a prompt that the file carries.
    """

    recipe: str
    votes: tuple[Vote, ...]
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
            "recipe": self.recipe,
            "confidence": self.confidence,
            "close": self.close,
            "calibration": "not calibrated" if self.confidence is None else "calibrated",
            "cosine": self.cosine,
            "votes": [dataclasses.asdict(vote) for vote in self.votes],
            "left_out": [
                {"member": error.name, "reason": error.reason, "hint": error.hint}
                for error in self.left_out
            ],
            "vector": self.vector.tolist(),
        }


@dataclass(frozen=True, slots=True)
class ProvenAnswer:
    """An answer whose prompt is the one that the file carries, else the words nearest to the blend."""

    answer: Answer
    proof: Proof

    def to_json(self) -> dict[str, Any]:
        """The answer's JSON, and the proof under "proof"."""
        return {**self.answer.to_json(), "proof": self.proof.to_json()}


def ask_with_proof(
    questions: Iterable[Question], k: int, *, retriever: Retriever, ensemble: Ensemble
) -> Iterator[ProvenAnswer | ImpromptError]:
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
        yield from prove_batch(batch, k, retriever=retriever, ensemble=ensemble, begun=begun)
        begun = time.perf_counter()


def prove_batch(
    batch: Sequence[ReadQuestion | ImpromptError],
    k: int,
    *,
    retriever: Retriever,
    ensemble: Ensemble,
    begun: float,
) -> Iterator[ProvenAnswer | ImpromptError]:
    """One result for each question of a batch that was read, in order; what could not be read stays its error.

    Args:
        k: as in `ask_with_proof`, whose errors are raised.
        begun: the `time.perf_counter` at which reading the batch began.
    """
    pictures = [
        read.picture
        for read in batch
        if isinstance(read, ReadQuestion) and read.picture is not None
    ]
    verdicts = iter(ensemble.judge(pictures))
    for read, answer in zip(batch, retriever.answer(batch, k, begun=begun), strict=True):
        if not isinstance(read, ReadQuestion):
            yield read
        elif read.picture is None:
            yield QueryError(
                "A text alone has no proof: the members look at images.",
                hint="Ask it without --proof.",
            )
        else:
            verdict = next(verdicts)
            yield (
                _proven(answer, verdict, ensemble=ensemble)
                if isinstance(answer, Answer)
                else answer
            )


def _proven(answer: Answer, verdict: Verdict, *, ensemble: Ensemble) -> ProvenAnswer:
    confidence = None
    if answer.how != "estimated":
        vector = ensemble.minilm.encode([answer.prompt])[0]
    else:
        vector = verdict.vector
        confidence = (
            ensemble.calibration.probability(verdict.signs) if ensemble.calibration else None
        )
        answer = dataclasses.replace(answer, prompt=verdict.prompt)
    proof = Proof(
        ensemble.recipe.name, verdict.votes, ensemble.left_out, vector, verdict.cosine, confidence
    )
    return ProvenAnswer(answer, proof)
