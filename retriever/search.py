"""Searches for questions in batches: encode, search the index, fetch the prompts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.errors import ImpromptError, QueryError, SpaceMismatch
from imprompt.core.languages import other_language
from imprompt.core.lookahead import ahead
from imprompt.core.protocols import DualEncoder
from imprompt.core.values import EncoderSpec, Prompt, Vectors, unit_rows
from imprompt.encoders.registry import knows_only_english
from imprompt.retriever.answers import Answer, Neighbour, Question
from imprompt.retriever.collapsing import nearest_groups
from imprompt.retriever.filters import ALL, Filters, PassingPrompts, select
from imprompt.retriever.query_embedding import loaded_batches
from imprompt.retriever.questions import ReadQuestion, read_question

if TYPE_CHECKING:
    from imprompt.store.open_index import OpenIndex

BATCH_QUESTIONS = 32
_MIN_MEAN_LENGTH = 1e-3
"""Below this length the mean of an image's and a text's vector has no meaningful direction."""
_MAX_SELECTIONS = 8


class Retriever:
    """Answers questions from one open version of an index.

    Args:
        version: has to stay open while questions are answered.
        encoder: of the version's space.
        effort: of every search, from 0 (fast) to 1 (exact); None for the effort at which the
            index's recall was measured.

    Raises:
        SpaceMismatch: the encoder is of another space than the index.
        QueryError: the effort is out of range.
    """

    def __init__(
        self, version: OpenIndex, encoder: DualEncoder, *, effort: float | None = None
    ) -> None:
        check_space(version, encoder.spec)
        if effort is not None and not 0 <= effort <= 1:
            raise QueryError(f"effort is {effort!r}; it must be from 0 to 1.")
        self._effort = effort
        self._encoder = encoder
        manifest = version.manifest
        self._encoder_name = manifest.encoders[0].name
        self._index = version.index(manifest.encoders[0].space)
        self._prompts = version.prompts
        self.corpus = manifest.corpus_label
        self._version = manifest.version
        self._selections: dict[Filters, PassingPrompts] = {}

    def ask(
        self, questions: Iterable[Question], k: int, *, filters: Filters = ALL
    ) -> Iterator[Answer | ImpromptError]:
        """Yield one result for each question, in order, as soon as its batch is answered.

        A question that cannot be answered gets its error (`EmptyQuery`, `ImageRejected`, …) as its
        result. A batch has 32 questions, or fewer if their pictures are large.

        Args:
            k: neighbours of each answer, from 1 to the index's `caps.max_k`; fewer are returned if
                fewer groups of prompts pass the filters.
            filters: conditions on the neighbours.

        Raises:
            QueryError: k is out of range (raised at once, not with the first result).
            ConfigError: the list of artists is missing (at once).
            StoreError, EncoderError: the index or the model fails.
        """
        self.check(k, filters)
        return self._answers(questions, k, filters)

    def answer(
        self,
        batch: Sequence[ReadQuestion | ImpromptError],
        k: int,
        *,
        begun: float,
        filters: Filters = ALL,
    ) -> list[Answer | ImpromptError]:
        """Return one result for each item of a batch of `read_batches`; errors are passed through.

        Args:
            k, filters: as in `ask`.
            begun: the `time.perf_counter` at which reading the batch began.
        """
        self._check_k(k)
        vectors = self._vectors([read for read in batch if isinstance(read, ReadQuestion)])
        neighbours = iter(self._neighbours(vectors, k, self.passing(filters)))
        seconds = (time.perf_counter() - begun) / max(len(batch), 1)
        return [
            self._answer(read, next(neighbours), filters, seconds)
            if isinstance(read, ReadQuestion)
            else read
            for read in batch
        ]

    def near(self, vectors: Vectors, k: int) -> list[tuple[Neighbour, ...]]:
        """Return the k nearest prompts of each unit row, best first; none for a row of zeros.

        Raises:
            QueryError: k is out of range, or a value is not finite.
            SpaceMismatch: the rows have another dimension than the index.
        """
        self._check_k(k)
        return [hits or () for hits in self._neighbours(vectors, k, self.passing(ALL))]

    def check(self, k: int, filters: Filters) -> None:
        """Raise what `ask` raises for k and the filters."""
        self._check_k(k)
        self.passing(filters)

    def _check_k(self, k: int) -> None:
        max_k = self._index.caps.max_k
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= max_k:
            raise QueryError(f"k is {k!r}; it must be a whole number from 1 to {max_k:,}.")

    def passing(self, filters: Filters) -> PassingPrompts:
        """Return the rows that pass the filters; those of the latest filters are cached.

        Raises:
            ConfigError: the list of artists is missing.
            StoreError: the prompts cannot be read.
        """
        selection = self._selections.get(filters)
        if selection is None:
            selection = select(filters, self._prompts)
            # Several threads may ask, so the cache is replaced and never changed in place.
            latest = [*self._selections.items()][1 - _MAX_SELECTIONS :]
            self._selections = {**dict(latest), filters: selection}
        return selection

    def _answers(
        self, questions: Iterable[Question], k: int, filters: Filters
    ) -> Iterator[Answer | ImpromptError]:
        begun = time.perf_counter()
        for batch in read_batches(questions):
            yield from self.answer(batch, k, begun=begun, filters=filters)
            begun = time.perf_counter()

    def _language_note(self, text: str) -> str:
        """Return what to know about a text in a language that the encoder does not know."""
        if not text or not knows_only_english(self._encoder_name):
            return ""
        language = other_language(text)
        if not language:
            return ""
        return f"The text seems to be {language}; {self._encoder_name} knows English only."

    def _vectors(self, questions: Sequence[ReadQuestion]) -> Vectors:
        """Return (n, dim) unit rows: of the image, of the text, or of their mean.

        A row is zeros if image and text are opposite, so that their mean has no direction.
        """
        pictures = [question.picture for question in questions if question.picture is not None]
        texts = list(dict.fromkeys(question.text for question in questions if question.text))
        encoder = self._encoder
        image_rows = iter(encoder.images.encode(pictures) if pictures else ())
        text_rows = dict(zip(texts, encoder.texts.encode(texts), strict=True)) if texts else {}
        rows = np.zeros((len(questions), encoder.spec.dim), dtype=np.float32)
        for row, question in zip(rows, questions, strict=True):
            parts = [next(image_rows)] if question.picture is not None else []
            parts += [text_rows[question.text]] if question.text else []
            row[:] = np.mean(parts, axis=0)
        rows[np.linalg.norm(rows, axis=1) < _MIN_MEAN_LENGTH] = 0
        return unit_rows(rows, role=f"the encoder {self._encoder_name}")

    def _neighbours(
        self, vectors: Vectors, k: int, selection: PassingPrompts
    ) -> list[tuple[Neighbour, ...] | None]:
        """Return the nearest prompts of each row, best first; None for a row of zeros."""
        rows = np.flatnonzero(vectors.any(axis=1))
        hits = nearest_groups(
            vectors[rows],
            k,
            index=self._index,
            prompts=self._prompts,
            selection=selection,
            effort=self._effort,
        )
        sizes = self._prompts.group_sizes([prompt.group_id for row in hits for prompt, _ in row])
        neighbours: list[tuple[Neighbour, ...] | None] = [None] * len(vectors)
        for row, row_hits in zip(rows.tolist(), hits, strict=True):
            neighbours[row] = tuple(
                _neighbour(prompt, score, n_like=sizes[prompt.group_id] - 1)
                for prompt, score in row_hits
            )
        return neighbours

    def _answer(
        self,
        read: ReadQuestion,
        neighbours: tuple[Neighbour, ...] | None,
        filters: Filters,
        seconds: float,
    ) -> Answer | ImpromptError:
        carried = read.carried
        if neighbours is None:
            return QueryError(
                "The image and the text are opposites: their mean vector is zero.",
                hint="Ask with only one of them.",
            )
        if not neighbours and not carried:
            return QueryError(
                f"No prompt of the index passes the filter: {filters}.", hint="Relax the filter."
            )
        return Answer(
            image=read.question.image if isinstance(read.question.image, Path) else None,
            text=read.question.text,
            prompt=carried.prompt if carried else "",
            how=carried.how if carried else "searched",
            neighbours=neighbours,
            encoder=self._encoder_name,
            corpus=self.corpus,
            version=self._version,
            seconds=round(seconds, 4),
            negative=carried.negative if carried else "",
            tool=carried.tool if carried else "",
            settings=carried.settings if carried else {},
            doubt=carried.doubt if carried else "",
            note=" ".join(filter(None, (read.note, self._language_note(read.text)))),
            filters=filters,
        )


def read_batches(questions: Iterable[Question]) -> Iterator[list[ReadQuestion | ImpromptError]]:
    """Yield the questions read, or their errors, in order and in batches.

    A batch has 32 questions, or fewer if their pictures are large, and is read while the one before
    is answered.
    """
    return ahead(
        loaded_batches(
            questions, read_question, size=BATCH_QUESTIONS, pixels=lambda read: read.n_pixels
        )
    )


def check_space(version: OpenIndex, spec: EncoderSpec) -> None:
    """Check that an encoder is of the index's space.

    Raises:
        SpaceMismatch: it is of another one.
    """
    index = version.manifest.encoders[0]
    if spec.space == index.space:
        return
    hint = f"rebuild the index: imprompt build-index --encoder {spec.name} --replace"
    if spec.name == index.name:
        # The encoder's weights have changed, and no option brings the old ones back.
        hint = f"To use it, {hint}"
    else:
        hint = f"Ask with --encoder {index.name}, or {hint}"
    raise SpaceMismatch(
        f"The index is in the space {index.space} of the encoder {index.name}; "
        f"the question is in {spec.space} of {spec.name}.",
        expected=index.space,
        found=spec.space,
        hint=hint,
    )


def _neighbour(prompt: Prompt, score: float, *, n_like: int) -> Neighbour:
    return Neighbour(
        prompt.row_id,
        prompt.prompt_key,
        prompt.text,
        prompt.shown,
        score,
        prompt.source,
        prompt.source_key,
        n_like,
    )
