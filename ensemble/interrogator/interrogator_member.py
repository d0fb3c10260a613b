"""The member `interrogator`: a caption, where there is a captioner, and the nearest phrases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.hub.fetch import Announce
from imprompt.core.protocols import DualEncoder, EnsembleMember, TextEncoder
from imprompt.core.values import Prediction, Vectors
from imprompt.ensemble.blend_config import InterrogatorSettings
from imprompt.ensemble.interrogator.library_modes import LibraryModes
from imprompt.ensemble.interrogator.phrase_lists import PhraseLists
from imprompt.ensemble.interrogator.phrase_vectors import PhraseTable, phrase_table
from imprompt.ensemble.neighbourhood import Neighbourhood

if TYPE_CHECKING:
    from PIL.Image import Image


class Interrogator:
    """The founding notebook's choice of phrases, for whole batches; or a mode of the library.

    Args:
        lists: the phrases to choose from.
        settings: how many of each kind; `lists` and `library` follow its other fields.
        encoder: encodes the lists, when first needed.
        neighbourhood: encodes the pictures, in the same space.
        minilm: encodes the prompts.
        captioner: its captions begin the prompts; without one a prompt begins with its medium.
        library: replaces the classic mode.
        announce: takes a line for the user.
    """

    name = "interrogator"

    def __init__(
        self,
        lists: PhraseLists,
        *,
        settings: InterrogatorSettings,
        encoder: DualEncoder,
        neighbourhood: Neighbourhood,
        minilm: TextEncoder,
        captioner: EnsembleMember | None = None,
        library: LibraryModes | None = None,
        announce: Announce,
    ) -> None:
        self._lists = lists
        self._settings = settings
        self._encoder = encoder
        self._neighbourhood = neighbourhood
        self._minilm = minilm
        self._captioner = captioner
        self._library = library
        self._announce = announce

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Return the prompts and their embeddings."""
        captions: Sequence[str] | None = None
        if self._captioner is not None and images:
            captions = self._captioner.predict(images).texts
        captions = captions or [""] * len(images)
        pictures = self._neighbourhood.surroundings(images).pictures
        if self._library is None:
            texts = self._classic(pictures, captions)
        else:
            mediums = self._mediums.top(pictures, 1)
            beginnings = [
                caption or medium for caption, (medium,) in zip(captions, mediums, strict=True)
            ]
            texts = self._library.prompts(images, beginnings)
        return Prediction(self._minilm.encode(texts), tuple(texts))

    def _classic(self, pictures: Vectors, captions: Sequence[str]) -> list[str]:
        counts = (self._settings.mediums, self._settings.movements, self._settings.flavors)
        labels = [table.top(pictures, n) for table, n in zip(self._tables, counts, strict=True)]
        prompts = [prompt_parts(*row) for row in zip(captions, *labels, strict=True)]
        return fitting(prompts, self._encoder.texts, max_tokens=self._encoder.spec.max_tokens)

    @cached_property
    def _tables(self) -> tuple[PhraseTable, PhraseTable, PhraseTable]:
        return self._mediums, self._table(self._lists.movements), self._table(self._lists.flavors)

    @cached_property
    def _mediums(self) -> PhraseTable:
        return self._table(self._lists.mediums)

    def _table(self, labels: Sequence[str]) -> PhraseTable:
        return phrase_table(labels, self._encoder, announce=self._announce)


def prompt_parts(
    caption: str, mediums: Sequence[str], movements: Sequence[str], flavors: Sequence[str]
) -> list[str]:
    """Return the parts of a prompt in order; a medium that begins the caption is not repeated."""
    return [
        *([caption] if caption else []),
        *(medium for medium in mediums if not caption.startswith(medium)),
        *movements,
        *flavors,
    ]


def fitting(prompts: Sequence[Sequence[str]], texts: TextEncoder, *, max_tokens: int) -> list[str]:
    """Return each prompt's parts joined by commas, as many as the tower reads, at least the first.

    The library's rule: a part joins as long as prompt and part, written without the comma, stay
    below `max_tokens` tokens. Like the library, it also cuts a caption at its commas.
    """
    pieces = [", ".join(parts).split(", ") for parts in prompts]
    joined = [", ".join(parts) for parts in pieces]
    # Two words written together, as the rule does, have at most as many tokens as bytes, so most
    # prompts fit by this bound and need no exact count.
    longest = np.array(
        [max(map(len, text.encode("utf-8", "replace").split()), default=0) for text in joined],
        dtype=np.int64,
    )
    bounds = texts.token_lengths(joined) + 2 * longest
    return [
        text if bound < max_tokens else _cut(parts, texts, max_tokens=max_tokens)
        for text, parts, bound in zip(joined, pieces, bounds, strict=True)
    ]


def _cut(parts: Sequence[str], texts: TextEncoder, *, max_tokens: int) -> str:
    beginnings = [", ".join(parts[:n]) for n in range(1, len(parts) + 1)]
    lengths = texts.token_lengths(
        [beginning + part for beginning, part in zip(beginnings, parts[1:], strict=False)]
    )
    last = next((n for n, length in enumerate(lengths) if length >= max_tokens), len(parts) - 1)
    return beginnings[last]
