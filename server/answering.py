"""Runs a batch of jobs against one snapshot of the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from imprompt.core.errors import ImpromptError
from imprompt.core.values import Vectors
from imprompt.ensemble.estimates import answer_batch
from imprompt.retriever import Answer, Question
from imprompt.retriever.filters import ALL, Filters
from imprompt.retriever.questions import ReadQuestion
from imprompt.server.prometheus import Metrics
from imprompt.server.snapshots import Snapshot
from imprompt.store.ranking import CAPS

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question with its options.

    Args:
        k: the number of nearest prompts.
        shared: add phrases of the nearest prompts to the answer to a text.
    """

    question: Question
    k: int
    filters: Filters = ALL
    shared: bool = False

    @property
    def batch_key(self) -> tuple[Filters, bool, bool]:
        """Requests with the same key share a batch, which changes none of their answers."""
        return self.filters, self.k <= CAPS.steady_k, self.shared


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """A request whose image and text have been read."""

    read: ReadQuestion
    request: AnswerRequest


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """Texts and images to embed, in MiniLM's space (`output`) or in that of the index."""

    texts: tuple[str, ...]
    pictures: tuple[Image, ...]
    output: bool


@dataclass(frozen=True, slots=True)
class Embeddings:
    """(n, dim) unit rows, first those of the texts, from the models of index version `version`."""

    vectors: Vectors
    space: str
    version: str


Job: TypeAlias = AnswerJob | EmbedJob
JobResult: TypeAlias = Answer | Embeddings | ImpromptError


def run_jobs(snapshot: Snapshot, jobs: Sequence[Job], metrics: Metrics) -> list[JobResult]:
    """Return one result for each job, in order; jobs of one kind share a pass of the models.

    Raises:
        ImpromptError: the index or a model fails; no job has a result then.
    """
    answer_jobs: dict[object, dict[int, AnswerJob]] = {}
    embed_jobs: dict[bool, dict[int, EmbedJob]] = {}
    for position, job in enumerate(jobs):
        if isinstance(job, AnswerJob):
            answer_jobs.setdefault(job.request.batch_key, {})[position] = job
        else:
            embed_jobs.setdefault(job.output, {})[position] = job
    results: dict[int, JobResult] = {}
    for asked in answer_jobs.values():
        answers = _answer(snapshot, [*asked.values()], metrics)
        results.update(zip(asked, answers, strict=True))
    for embed_batch in embed_jobs.values():
        with metrics.stage("embed"):
            embeddings = _embed(snapshot, [*embed_batch.values()])
        results.update(zip(embed_batch, embeddings, strict=True))
    return [results[position] for position in range(len(jobs))]


def _embed(snapshot: Snapshot, jobs: Sequence[EmbedJob]) -> list[Embeddings]:
    encoder = snapshot.output if jobs[0].output else snapshot.encoder
    texts = [text for job in jobs for text in job.texts]
    pictures = [picture for job in jobs for picture in job.pictures]
    no_rows = np.empty((0, encoder.spec.dim), np.float32)
    text_rows = encoder.texts.encode(texts) if texts else no_rows
    picture_rows = encoder.images.encode(pictures) if pictures else no_rows
    text_ends = np.cumsum([len(job.texts) for job in jobs])[:-1]
    picture_ends = np.cumsum([len(job.pictures) for job in jobs])[:-1]
    return [
        Embeddings(np.concatenate(rows), encoder.spec.space, snapshot.version.manifest.version)
        for rows in zip(
            np.split(text_rows, text_ends), np.split(picture_rows, picture_ends), strict=True
        )
    ]


def _answer(
    snapshot: Snapshot, jobs: Sequence[AnswerJob], metrics: Metrics
) -> list[Answer | ImpromptError]:
    # The 5 nearest are the first 5 of the 50 nearest, so all are searched with the largest k.
    k = max(job.request.k for job in jobs)
    batch = [job.read for job in jobs]
    begun = perf_counter()
    if pictures := [read.picture for read in batch if read.picture is not None]:
        with metrics.stage("encode"):
            snapshot.encoder.images.encode(pictures)  # cached: nothing below encodes them again
    with metrics.stage("answer"):
        answers = answer_batch(
            batch,
            k,
            retriever=snapshot.retriever,
            ensemble=snapshot.ensemble,
            filters=jobs[0].request.filters,
            shared=jobs[0].request.shared,
            begun=begun,
        )
    return [
        answer if isinstance(answer, ImpromptError) else answer.nearest(job.request.k)
        for answer, job in zip(answers, jobs, strict=True)
    ]
