"""The member: a caption where there is a captioner, and the phrases nearest to the picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.hub.fetch import Announce
from imprompt.core.protocols import DualEncoder, EnsembleMember, TextEncoder
from imprompt.core.values import Prediction, Vectors
from imprompt.ensemble.blend_config import InterrogatorSettings
from imprompt.ensemble.interrogator.label_vectors import PhraseTable, phrase_table
from imprompt.ensemble.interrogator.library_modes import LibraryModes
from imprompt.ensemble.interrogator.phrase_lists import PhraseLists
from imprompt.ensemble.neighbourhood import Neighbourhood

if TYPE_CHECKING:
    from PIL.Image import Image


class Interrogator:
    """The classic blend config of the notebook that the project began with, for whole batches; or a mode of the library.

    Args:
        lists: what is chosen from.
        settings: how many of each; its `mode` and `phrases` are those of `library` and `lists`.
        pair: encodes the lists, at the first question; its pictures are those of the neighbourhood.
        neighbourhood: what was seen in the pictures.
        minilm: encodes the prompts.
        captioner: its words begin each prompt; without it, or where it says nothing, a prompt
            begins with its medium.
        library: takes the place of the classic blend_config.
        announce: takes a line for the user.
    """

    name = "interrogator"

    def __init__(
        self,
        lists: PhraseLists,
        *,
        settings: InterrogatorSettings,
        pair: DualEncoder,
        neighbourhood: Neighbourhood,
        minilm: TextEncoder,
        captioner: EnsembleMember | None = None,
        library: LibraryModes | None = None,
        announce: Announce,
    ) -> None:
        self._lists = lists
        self._settings = settings
        self._pair = pair
        self._neighbourhood = neighbourhood
        self._minilm = minilm
        self._captioner = captioner
        self._modes = library
        self._announce = announce

    def predict(self, images: Sequence[Image]) -> Prediction:
        """The prompts and their embeddings."""
        captions = (
            self._captioner.predict(images).texts if self._captioner and images else None
        ) or [""] * len(images)
        pictures = self._neighbourhood.surroundings(images).pictures
        if self._modes is None:
            texts = self._classic(pictures, captions)
        else:
            mediums = self._mediums.top(pictures, 1)
            beginnings = [
                caption or medium for caption, (medium,) in zip(captions, mediums, strict=True)
            ]
            texts = self._modes.prompts(images, beginnings)
        return Prediction(self._minilm.encode(texts), tuple(texts))

    def _classic(self, pictures: Vectors, captions: Sequence[str]) -> list[str]:
        counts = (self._settings.mediums, self._settings.movements, self._settings.flavors)
        chosen = [table.top(pictures, n) for table, n in zip(self._tables, counts, strict=True)]
        prompts = [prompt_parts(*row) for row in zip(captions, *chosen, strict=True)]
        return fitting(prompts, self._pair.texts, max_tokens=self._pair.spec.max_tokens)

    @cached_property
    def _tables(self) -> tuple[PhraseTable, PhraseTable, PhraseTable]:
        movements, flavors = (
            phrase_table(labels, self._pair, announce=self._announce)
            for labels in (self._lists.movements, self._lists.flavors)
        )
        return self._mediums, movements, flavors

    @cached_property
    def _mediums(self) -> PhraseTable:
        return phrase_table(self._lists.mediums, self._pair, announce=self._announce)


def prompt_parts(
    caption: str, mediums: Sequence[str], movements: Sequence[str], flavors: Sequence[str]
) -> list[str]:
    """What a prompt is made of, in its order; a medium that the caption begins with is not said twice."""
    parts = [caption] if caption else []
    return [
        *parts,
        *(medium for medium in mediums if not caption.startswith(medium)),
        *movements,
        *flavors,
    ]


def fitting(prompts: Sequence[Sequence[str]], texts: TextEncoder, *, max_tokens: int) -> list[str]:
    """The parts of each prompt joined by commas, as many from the first as the tower reads; the first alone where that is all.

    The library's rule: a part joins as long as prompt and part, written without the comma, stay
    below `max_tokens` tokens.
    """
    pieces = [
        ", ".join(parts).split(", ") for parts in prompts
    ]  # a caption is cut at its commas, too
    joined = [", ".join(parts) for parts in pieces]
    # Two words written together, as the rule does, have at most as many tokens as bytes: most
    # prompts need no closer look.
    longest = np.array(
        [max(map(len, text.encode("utf-8", "replace").split()), default=0) for text in joined],
        dtype=np.int64,
    )
    loose = texts.token_lengths(joined) + 2 * longest
    return [
        text if length < max_tokens else _cut(parts, texts, max_tokens=max_tokens)
        for text, parts, length in zip(joined, pieces, loose, strict=True)
    ]


def _cut(parts: Sequence[str], texts: TextEncoder, *, max_tokens: int) -> str:
    begun = [", ".join(parts[:n]) for n in range(1, len(parts) + 1)]
    lengths = texts.token_lengths(
        [before + part for before, part in zip(begun, parts[1:], strict=False)]
    )
    kept = next((n for n, length in enumerate(lengths) if length >= max_tokens), len(parts) - 1)
    return begun[kept]
