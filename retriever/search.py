"""Questions to answers: encode a batch, search the index once, fetch the prompts once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.errors import ImpromptError, QueryError, SpaceMismatch
from imprompt.core.lookahead import ahead
from imprompt.core.protocols import DualEncoder
from imprompt.core.values import EncoderSpec, Prompt, Vectors, unit_rows
from imprompt.retriever.answers import Answer, Neighbour, Question
from imprompt.retriever.collapsing import nearest_groups
from imprompt.retriever.filters import ALL, Filters, PassingPrompts, select
from imprompt.retriever.query_embedding import loaded_batches
from imprompt.retriever.questions import ReadQuestion, read_question

if TYPE_CHECKING:
    from imprompt.store.open_index import OpenIndex

BATCH_QUESTIONS = 32
_SHORTEST_MEAN = 1e-3
_KEPT_SELECTIONS = 8


class Retriever:
    """Answers questions from one pinned version.

    Args:
        version: stays open as long as answers are asked for.
        pair: of the version's space.
        effort: of every search, 0 (fast) to 1 (exact); None is the one that the index's recall was
            measured with.

    Raises:
        SpaceMismatch: the pair is of another space than the index.
        QueryError: effort is out of range.
    """

    def __init__(
        self, version: OpenIndex, pair: DualEncoder, *, effort: float | None = None
    ) -> None:
        check_space(version, pair.spec)
        if effort is not None and not 0 <= effort <= 1:
            raise QueryError(f"effort is {effort!r}; it must be from 0 to 1.")
        self._effort = effort
        manifest = version.manifest
        encoder = manifest.encoders[0]
        self._pair = pair
        self._index = version.index(encoder.space)
        self._prompts = version.prompts
        self._encoder = encoder.name
        self._corpus = ", ".join(
            corpus.name + (" (synthetic)" if corpus.synthetic else "") for corpus in manifest.corpus
        )
        self._version = manifest.version
        self._selections: dict[Filters, PassingPrompts] = {}

    def ask(
        self, questions: Iterable[Question], k: int, *, filters: Filters = ALL
    ) -> Iterator[Answer | ImpromptError]:
        """One result for each question, in order, as its batch is done.

        A question that cannot be answered gets its error (`EmptyQuery`, `ImageRejected`, …) as its
        result; the others are answered. Questions are taken in batches of 32, or fewer where their
        pictures are large.

        Args:
            k: how many neighbours, 1 to the index's `caps.max_k`; fewer come where fewer groups of
                prompts pass the filters.
            filters: which prompts may be neighbours.

        Raises:
            QueryError: k is out of range (at once, not with the first result).
            ConfigError: there is no list of artists to leave out (at once).
            StoreError, EncoderError: the index or the model fails.
        """
        self._check_k(k)
        self._select(filters)
        return self._answers(questions, k, filters)

    def answer(
        self,
        batch: Sequence[ReadQuestion | ImpromptError],
        k: int,
        *,
        begun: float,
        filters: Filters = ALL,
    ) -> list[Answer | ImpromptError]:
        """One result for each question of a batch that `read_batches` gave, in order; what could not be read stays its error.

        Args:
            k: as in `ask`.
            begun: the `time.perf_counter` at which reading the batch began.
            filters: as in `ask`.
        """
        self._check_k(k)
        vectors = self._vectors([result for result in batch if isinstance(result, ReadQuestion)])
        found = iter(self._neighbours(vectors, k, self._select(filters)))
        seconds = (time.perf_counter() - begun) / max(len(batch), 1)
        return [
            self._answer(result, *next(found), filters, seconds)
            if isinstance(result, ReadQuestion)
            else result
            for result in batch
        ]

    def near(self, vectors: Vectors, k: int) -> list[tuple[Neighbour, ...]]:
        """For each unit row of the index's space the prompts nearest to it, nearest first; none for a row of zeros.

        Raises:
            QueryError: k is out of range, or a value is not finite.
            SpaceMismatch: the rows have another dimension.
        """
        self._check_k(k)
        return [neighbours for _, neighbours in self._neighbours(vectors, k, self._select(ALL))]

    def _check_k(self, k: int) -> None:
        most = self._index.caps.max_k
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= most:
            raise QueryError(f"k is {k!r}; it must be a whole number from 1 to {most:,}.")

    def _select(self, filters: Filters) -> PassingPrompts:
        """The rows that pass, looked up once for each of the filters used last."""
        found = self._selections.get(filters)
        if found is None:
            found = select(filters, self._prompts)
            # A new mapping each time: questions may be asked from several threads.
            self._selections = dict([*self._selections.items()][1 - _KEPT_SELECTIONS :]) | {
                filters: found
            }
        return found

    def _answers(
        self, questions: Iterable[Question], k: int, filters: Filters
    ) -> Iterator[Answer | ImpromptError]:
        begun = time.perf_counter()
        for batch in read_batches(questions):
            yield from self.answer(batch, k, begun=begun, filters=filters)
            begun = time.perf_counter()

    def _vectors(self, questions: Sequence[ReadQuestion]) -> Vectors:
        """(n, dim) rows: the image's, the text's, or their mean scaled to length 1; zeros where a mean has no direction."""
        pictures = [question.picture for question in questions if question.picture is not None]
        texts = list(dict.fromkeys(question.text for question in questions if question.text))
        image_rows = iter(self._pair.images.encode(pictures) if pictures else ())
        text_rows = dict(zip(texts, self._pair.texts.encode(texts), strict=True)) if texts else {}
        rows = np.zeros((len(questions), self._pair.spec.dim), dtype=np.float32)
        for row, question in zip(rows, questions, strict=True):
            parts = [next(image_rows)] if question.picture is not None else []
            parts += [text_rows[question.text]] if question.text else []
            row[:] = np.mean(parts, axis=0)
        rows[np.linalg.norm(rows, axis=1) < _SHORTEST_MEAN] = 0
        return unit_rows(rows, role=f"the encoder {self._encoder}")

    def _neighbours(
        self, vectors: Vectors, k: int, selection: PassingPrompts
    ) -> list[tuple[bool, tuple[Neighbour, ...]]]:
        """For each row whether it has a direction, and the prompts found, nearest first."""
        rows = np.flatnonzero(vectors.any(axis=1))
        picked = nearest_groups(
            vectors[rows],
            k,
            index=self._index,
            prompts=self._prompts,
            selection=selection,
            effort=self._effort,
        )
        sizes = self._prompts.group_sizes(
            [prompt.group_id for pairs in picked for prompt, _ in pairs]
        )
        found: list[tuple[bool, tuple[Neighbour, ...]]] = [(False, ())] * len(vectors)
        for row, pairs in zip(rows.tolist(), picked, strict=True):
            found[row] = (
                True,
                tuple(
                    _neighbour(prompt, score, n_like=sizes[prompt.group_id] - 1)
                    for prompt, score in pairs
                ),
            )
        return found

    def _answer(
        self,
        read: ReadQuestion,
        directed: bool,
        neighbours: tuple[Neighbour, ...],
        filters: Filters,
        seconds: float,
    ) -> Answer | ImpromptError:
        carried = read.carried
        if not directed:
            return QueryError(
                "The image and the text point in opposite directions; their mean has none.",
                hint="Ask one of them.",
            )
        if not neighbours and not carried:
            return QueryError(
                f"No prompt of the index passes the filter: {filters}.", hint="Loosen it."
            )
        return Answer(
            image=read.question.image if isinstance(read.question.image, Path) else None,
            text=read.question.text,
            prompt=carried.prompt if carried else neighbours[0].prompt,
            how=carried.how if carried else "estimated",
            neighbours=neighbours,
            encoder=self._encoder,
            corpus=self._corpus,
            version=self._version,
            seconds=round(seconds, 4),
            negative=carried.negative if carried else "",
            tool=carried.tool if carried else "",
            settings=carried.settings if carried else {},
            doubt=carried.doubt if carried else "",
            note=read.note,
            filters=filters,
        )


def read_batches(questions: Iterable[Question]) -> Iterator[list[ReadQuestion | ImpromptError]]:
    """Every question read, or its error, in order and in batches of 32, or fewer where their pictures are large; each is read while
    the one before is answered."""
    return ahead(
        loaded_batches(
            questions, read_question, size=BATCH_QUESTIONS, pixels=lambda read: read.n_pixels
        )
    )


def check_space(version: OpenIndex, asked: EncoderSpec) -> None:
    """Raise `SpaceMismatch` where an encoder is of another space than the index."""
    encoder = version.manifest.encoders[0]
    if asked.space != encoder.space:
        raise _mismatch(index=encoder, asked=asked)


def _neighbour(prompt: Prompt, score: float, *, n_like: int) -> Neighbour:
    return Neighbour(
        prompt.row_id,
        prompt.prompt_key,
        prompt.text,
        score,
        prompt.source,
        prompt.source_key,
        n_like,
    )


def _mismatch(*, index: EncoderSpec, asked: EncoderSpec) -> SpaceMismatch:
    rebuild = f"build the index again: python cli.py build-index --encoder {asked.name} --replace"
    return SpaceMismatch(
        f"The index is in the space {index.space} of the encoder {index.name}, the question is in {asked.space} of {asked.name}.",
        expected=index.space,
        found=asked.space,
        # The same name in another space: the weights behind it have changed, and no option brings
        # the old ones back.
        hint=f"To use it, {rebuild}"
        if asked.name == index.name
        else f"Ask with --encoder {index.name}, or {rebuild}",
    )
