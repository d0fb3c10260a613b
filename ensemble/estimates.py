"""Answer questions: the ensemble composes a picture's prompt, and a text is searched for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence

from imprompt.core.errors import ImpromptError, MemberUnavailable
from imprompt.ensemble.confidence import ABSTAIN_BELOW
from imprompt.ensemble.ensemble import Ensemble, EnsemblePrediction
from imprompt.retriever import Answer, Question, Retriever
from imprompt.retriever.answers import EstimatedPrompt, Explanation
from imprompt.retriever.filters import ALL, Filters
from imprompt.retriever.questions import ReadQuestion
from imprompt.retriever.search import read_batches


def ask(
    questions: Iterable[Question],
    k: int,
    *,
    retriever: Retriever,
    ensemble: Ensemble | MemberUnavailable,
    filters: Filters = ALL,
) -> Iterator[Answer | ImpromptError]:
    """Yield one result for each question in order, batch by batch.

    A picture whose file carries no prompt gets the ensemble's. A text, alone or with a picture, is
    searched for.

    Args:
        k, filters: see `Retriever.ask`; the ensemble, too, sees only prompts that pass.
        ensemble: an error is the result of each question that needs the ensemble.

    Raises:
        MemberUnavailable: a member failed.
        QueryError, ConfigError, StoreError, EncoderError: see `Retriever.ask`.
    """
    retriever.check(k, filters)
    return _answers(questions, k, retriever=retriever, ensemble=ensemble, filters=filters)


def _answers(
    questions: Iterable[Question],
    k: int,
    *,
    retriever: Retriever,
    ensemble: Ensemble | MemberUnavailable,
    filters: Filters,
) -> Iterator[Answer | ImpromptError]:
    begun = time.perf_counter()
    for batch in read_batches(questions):
        yield from answer_batch(
            batch, k, retriever=retriever, ensemble=ensemble, filters=filters, begun=begun
        )
        begun = time.perf_counter()


def answer_batch(
    batch: Sequence[ReadQuestion | ImpromptError],
    k: int,
    *,
    retriever: Retriever,
    ensemble: Ensemble | MemberUnavailable,
    filters: Filters = ALL,
    begun: float,
) -> list[Answer | ImpromptError]:
    """Return one result for each item of a batch, in order; errors of reading are passed through.

    Args:
        begun: the `time.perf_counter` at which reading the batch began.
        k, ensemble, filters: as in `ask`, which also lists the errors.
    """
    answers = retriever.answer(batch, k, begun=begun, filters=filters)
    wanted = [
        position
        for position, (read, answer) in enumerate(zip(batch, answers, strict=True))
        if isinstance(read, ReadQuestion)
        and isinstance(answer, Answer)
        and read.picture is not None
        and not read.text
        and not read.carried
    ]
    if not wanted:
        return answers
    if isinstance(ensemble, MemberUnavailable):
        for position in wanted:
            answers[position] = ensemble
        return answers
    # All pictures, as the retriever has encoded them: the members then encode none again.
    pictures = {
        position: read.picture
        for position, read in enumerate(batch)
        if isinstance(read, ReadQuestion) and read.picture is not None
    }
    places = [place for place, position in enumerate(pictures) if position in wanted]
    members = ensemble.among(retriever.passing(filters))
    predictions = members.predict([*pictures.values()], places)
    for position, prediction in zip(wanted, predictions, strict=True):
        answer = answers[position]
        if isinstance(answer, Answer):
            seconds = round((time.perf_counter() - begun) / len(batch), 4)
            answers[position] = dataclasses.replace(
                answer,
                prompt=prediction.prompt,
                how="estimated",
                estimate=estimate(prediction, members),
                seconds=seconds,
            )
    return answers


def estimate(prediction: EnsemblePrediction, ensemble: Ensemble) -> EstimatedPrompt:
    """Return a prediction with its confidence."""
    confidence = None
    if ensemble.calibration is not None:
        confidence = ensemble.calibration.probability(prediction.confidence_features)
    return EstimatedPrompt(
        phrases=prediction.phrases,
        shared=prediction.shared,
        tags=prediction.tags,
        confidence=confidence,
        close=None if confidence is None else confidence >= ABSTAIN_BELOW,
        suggestion=prediction.suggestion,
        explanation=Explanation(
            blend_config=ensemble.blend_config.name,
            contributions=prediction.contributions,
            left_out=ensemble.left_out,
            vector=prediction.vector,
            cosine=prediction.cosine,
        ),
    )
