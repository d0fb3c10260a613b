"""From a batch of jobs to their results, by one version."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from imprompt.core.errors import ImpromptError, MemberUnavailable
from imprompt.core.values import Vectors
from imprompt.ensemble.explanation import ExplainedAnswer, explain_batch
from imprompt.retriever import Answer, Question
from imprompt.retriever.filters import ALL, Filters
from imprompt.retriever.questions import ReadQuestion
from imprompt.server.prometheus import Metrics
from imprompt.server.snapshots import Snapshot
from imprompt.store.ranking import CAPS

if TYPE_CHECKING:
    from PIL.Image import Image

Answered: TypeAlias = Answer | ExplainedAnswer
Kind: TypeAlias = tuple[bool, Filters, bool]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question and how it is to be answered: with `k` neighbours that pass the filters, and with the members' contributions where
    `members` is set; members know of no filters.
    """

    question: Question
    k: int
    members: bool = False
    filters: Filters = ALL

    @property
    def kind(self) -> Kind:
        """Questions of one kind are answered together, none by other candidates than alone."""
        return self.members, self.filters, self.k <= CAPS.steady_k


@dataclass(frozen=True, slots=True)
class AskJob:
    """A question, read."""

    read: ReadQuestion
    ask: Ask


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """Texts and pictures to embed, in MiniLM's space (`output`) or in that of the index."""

    texts: tuple[str, ...]
    pictures: tuple[Image, ...]
    output: bool


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """(n, dim) unit rows, those of the texts first, by the models of `version`."""

    vectors: Vectors
    space: str
    version: str


Job: TypeAlias = AskJob | EmbedJob
Done: TypeAlias = Answered | EmbeddedTexts | ImpromptError


def work_off(snapshot: Snapshot, jobs: Sequence[Job], metrics: Metrics) -> list[Done]:
    """One result for each job, in order; jobs of one kind go through the models together.

    Raises:
        ImpromptError: the index or a model fails; nothing is answered then.
    """
    asked: dict[Kind, list[AskJob]] = {}
    embedded: dict[bool, list[EmbedJob]] = {}
    for job in jobs:
        if isinstance(job, AskJob):
            asked.setdefault(job.ask.kind, []).append(job)
        else:
            embedded.setdefault(job.output, []).append(job)
    results: dict[int, Done] = {}
    for questions in asked.values():
        answers = _answer_alike(snapshot, questions, metrics)
        results.update((id(job), answer) for job, answer in zip(questions, answers, strict=True))
    for items in embedded.values():
        with metrics.stage("embed"):
            results.update(
                (id(job), rows)
                for job, rows in zip(items, _embed_alike(snapshot, items), strict=True)
            )
    return [results[id(job)] for job in jobs]


def _embed_alike(snapshot: Snapshot, jobs: Sequence[EmbedJob]) -> list[EmbeddedTexts]:
    space = snapshot.output if jobs[0].output else snapshot.pair
    texts = [text for job in jobs for text in job.texts]
    pictures = [picture for job in jobs for picture in job.pictures]
    dim = space.spec.dim
    text_rows = space.texts.encode(texts) if texts else np.empty((0, dim), np.float32)
    picture_rows = space.images.encode(pictures) if pictures else np.empty((0, dim), np.float32)
    done, n_texts, n_pictures = [], 0, 0
    for job in jobs:
        rows = (
            text_rows[n_texts : n_texts + len(job.texts)],
            picture_rows[n_pictures : n_pictures + len(job.pictures)],
        )
        n_texts, n_pictures = n_texts + len(job.texts), n_pictures + len(job.pictures)
        done.append(
            EmbeddedTexts(np.concatenate(rows), space.spec.space, snapshot.version.manifest.version)
        )
    return done


def _answer_alike(
    snapshot: Snapshot, jobs: Sequence[AskJob], metrics: Metrics
) -> list[Answered | ImpromptError]:
    # The first 5 of the 50 nearest are the 5 nearest, so all are asked with the most that one of
    # them wants.
    k = max(job.ask.k for job in jobs)
    batch = [job.read for job in jobs]
    begun = perf_counter()
    if pictures := [read.picture for read in batch if read.picture is not None]:
        with metrics.stage("see"):
            snapshot.pair.images.encode(
                pictures
            )  # it remembers what it saw last, for all who ask below
    answers: list[Answered | ImpromptError]
    if not jobs[0].ask.members:
        with metrics.stage("answer"):
            answers = [
                *snapshot.retriever.answer(batch, k, begun=begun, filters=jobs[0].ask.filters)
            ]
    elif isinstance(snapshot.ensemble, MemberUnavailable):
        raise snapshot.ensemble
    else:
        with metrics.stage("vote"):
            answers = [
                *explain_batch(
                    batch, k, retriever=snapshot.retriever, ensemble=snapshot.ensemble, begun=begun
                )
            ]
    return [_cut(answer, job.ask.k) for answer, job in zip(answers, jobs, strict=True)]


def _cut(answer: Answered | ImpromptError, k: int) -> Answered | ImpromptError:
    """The answer with its `k` nearest neighbours."""
    if isinstance(answer, ExplainedAnswer):
        inner = _cut(answer.answer, k)
        return dataclasses.replace(answer, answer=inner) if isinstance(inner, Answer) else answer
    if isinstance(answer, Answer) and len(answer.neighbours) > k:
        return dataclasses.replace(answer, neighbours=answer.neighbours[:k])
    return answer
