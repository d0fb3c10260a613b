"""Answer questions: the ensemble composes a picture's prompt, and a text is searched for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence

from imprompt.core.errors import ImpromptError, MemberUnavailable
from imprompt.core.protocols import TextEncoder
from imprompt.core.values import Vectors, normalize_text
from imprompt.ensemble.confidence import ABSTAIN_BELOW
from imprompt.ensemble.ensemble import Ensemble, EnsemblePrediction
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.ensemble.phrases import AROUND, Sources, find_candidates, shared_phrases
from imprompt.retriever import Answer, Question, Retriever
from imprompt.retriever.answers import EstimatedPrompt, Explanation
from imprompt.retriever.closeness import closeness
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
    shared: bool = False,
    begun: float,
) -> list[Answer | ImpromptError]:
    """Return one result for each item of a batch, in order; errors of reading are passed through.

    Args:
        begun: the `time.perf_counter` at which reading the batch began.
        k, ensemble, filters: as in `ask`, which also lists the errors.
        shared: add `shared` to the answers to texts.
    """
    wider = max(k, AROUND) if shared else k
    answers = retriever.answer(batch, wider, begun=begun, filters=filters)
    if shared:
        answers = [
            answer if isinstance(answer, ImpromptError) else _with_shared(answer, k)
            for answer in answers
        ]
    wanted = [
        position
        for position, (read, answer) in enumerate(zip(batch, answers, strict=True))
        if isinstance(read, ReadQuestion)
        and isinstance(answer, Answer)
        and read.picture is not None
        and not read.text
        and not read.carried
    ]
    if isinstance(ensemble, MemberUnavailable):
        for position in wanted:
            answers[position] = ensemble
        return answers
    targets = _known_texts(batch, ensemble.minilm)
    if wanted:
        targets |= _estimate(answers, batch, wanted, ensemble.among(retriever.passing(filters)))
    seconds = round((time.perf_counter() - begun) / len(batch), 4)
    for position, target in targets.items():
        answer = answers[position]
        if isinstance(answer, Answer):
            worded = _with_words(answer, target, ensemble.neighbourhood)
            answers[position] = dataclasses.replace(worded, seconds=seconds)
    return answers


def _estimate(
    answers: list[Answer | ImpromptError],
    batch: Sequence[ReadQuestion | ImpromptError],
    wanted: Sequence[int],
    members: Ensemble,
) -> dict[int, Vectors]:
    """Put the estimates of the wanted pictures into their answers; return the blends."""
    # All pictures, as the retriever has encoded them: the members then encode none again.
    pictures = {
        position: read.picture
        for position, read in enumerate(batch)
        if isinstance(read, ReadQuestion) and read.picture is not None
    }
    places = [place for place, position in enumerate(pictures) if position in wanted]
    predictions = members.predict([*pictures.values()], places)
    for position, prediction in zip(wanted, predictions, strict=True):
        answer = answers[position]
        if isinstance(answer, Answer):
            answers[position] = dataclasses.replace(
                answer,
                prompt=prediction.prompt,
                how="estimated",
                estimate=estimate(prediction, members),
            )
    return {
        position: prediction.vector
        for position, prediction in zip(wanted, predictions, strict=True)
    }


def _known_texts(
    batch: Sequence[ReadQuestion | ImpromptError], minilm: TextEncoder
) -> dict[int, Vectors]:
    """Return (384,) unit rows of the questions' texts and of the prompts in their files."""
    rows: dict[int, Vectors] = {}
    questions = [(at, read) for at, read in enumerate(batch) if isinstance(read, ReadQuestion)]
    asked = {at: read.text for at, read in questions if read.text}
    told = {
        at: normalize_text(read.carried.prompt)
        for at, read in questions
        if read.carried and at not in asked
    }
    # Two batches: the first is the one that the retriever has encoded, so `lite` encodes it once.
    for texts in (asked, told):
        if unique := list(dict.fromkeys(texts.values())):
            encoded = dict(zip(unique, minilm.encode(unique), strict=True))
            rows |= {at: encoded[text] for at, text in texts.items()}
    return rows


def _with_words(answer: Answer, target: Vectors, neighbourhood: Neighbourhood) -> Answer:
    """Return the answer with a word for how near each neighbour is to a (384,) unit vector."""
    hits, estimated = answer.neighbours, answer.how == "estimated"
    cosines = neighbourhood.cosines([hit.row_id for hit in hits], target)
    return dataclasses.replace(
        answer,
        neighbours=tuple(
            dataclasses.replace(hit, closeness=closeness(cosine, estimated=estimated))
            for hit, cosine in zip(hits, cosines, strict=True)
        ),
    )


def _with_shared(answer: Answer, k: int) -> Answer:
    """Return the answer with its k nearest prompts; for a text, with phrases of all it has."""
    nearest = answer.nearest(k)
    if answer.how != "searched" or not answer.text:
        return nearest
    phrases = shared_phrases(find_candidates(Sources(answer.neighbours[:AROUND])))
    return dataclasses.replace(nearest, shared=phrases)


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
