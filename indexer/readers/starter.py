"""The starter corpus: synthetic prompts in the manner of real ones, expanded from a vocabulary.

The vocabulary is in `starter.toml`; a fixed seed makes the corpus the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from imprompt.core.articles import with_article
from imprompt.core.values import RawPrompt
from imprompt.indexer.readers.rows import Row, StreamedSource

NAME = "starter"
ROWS = 5_000
_SEED = 17

_PHOTO_KINDS = frozenset({"photo", "portrait_photo", "wide_photo", "macro_photo", "food_photo"})

_HEADS = (
    "{subject} {place}",
    "{subject} {action} {place}",
    "{subject} {action} {place}",
    "{medium} of {subject} {place}",
    "{medium} of {subject} {action} {place}",
    "{a_medium} of {subject} {action} {place}",
    "{quality} {medium} of {subject} {place}",
    "{a_quality} {medium} of {subject} {action} {place}",
    "{mood} {medium} of {subject} {place}",
    "{subject} {place}, {medium}",
    "{subject} {action} {place}, {medium}",
    "{subject} {action}, {place}, {quality} {medium}",
    "{medium}, {subject} {place}",
    "{subject}, {medium}",
    "{subject} {action}",
)
"""How a prompt begins; {action} is left out if a theme has none."""

_TAIL_LENGTHS = (0, 0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 6, 8, 9, 11, 13)
"""Numbers of modifiers that follow.

Of 20,000 real prompts a quarter have no comma, the median is 3, and one in ten has 13.
"""

_LEAST_WORDS = 4
"""Shorter ones would be bare nouns, which are not prompts."""

T = TypeVar("T")


class _Theme(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    weight: int
    subjects: list[str]
    places: list[str]
    light: list[str]
    media: list[str]
    actions: list[str] = []


class _Wording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    photo: list[str]
    art: list[str]
    moods: list[str]
    colours: list[str]
    qualities: list[str]


class Vocabulary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `starter.toml`."""

    media: dict[str, list[str]]
    light: dict[str, list[str]]
    words: _Wording
    theme: list[_Theme]


@dataclass(slots=True)
class _Draws:
    """Random choices, the same everywhere: numpy promises not to change PCG64's raw output."""

    bits: np.random.PCG64

    def below(self, bound: int) -> int:
        return int(self.bits.random_raw()) % bound

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def several(self, choices: Sequence[T], n: int) -> list[T]:
        rest = list(choices)
        return [rest.pop(self.below(len(rest))) for _ in range(min(n, len(rest)))]


def starter_source() -> StreamedSource:
    """Return 5,000 different synthetic prompts; `source_key` is "row N", counted from 0."""

    def rows(start: int) -> Iterator[Row]:
        for number, text in enumerate(expand(load_vocabulary(), ROWS, seed=_SEED)):
            if number >= start:
                yield RawPrompt(text, NAME, f"row {number}")

    def digest() -> str:
        prompts = expand(load_vocabulary(), ROWS, seed=_SEED)
        return hashlib.sha256("\n".join(prompts).encode()).hexdigest()

    return StreamedSource(NAME, True, rows, digest, lambda: ROWS)


def load_vocabulary() -> Vocabulary:
    """Return the vocabulary that ships with imprompt."""
    return msgspec.toml.decode(
        Path(__file__).with_name("starter.toml").read_bytes(), type=Vocabulary
    )


def expand(vocabulary: Vocabulary, n: int, *, seed: int) -> Iterator[str]:
    """Yield `n` prompts that differ by more than case; `n` does not change the first ones."""
    draws = _Draws(np.random.PCG64(seed))
    themes = [theme for theme in vocabulary.theme for _ in range(theme.weight)]
    seen: set[str] = set()
    while len(seen) < n:
        text = _compose(vocabulary, draws.one(themes), draws)
        if text.lower() not in seen and len(text.split()) >= _LEAST_WORDS:
            seen.add(text.lower())
            yield text


def _compose(vocabulary: Vocabulary, theme: _Theme, draws: _Draws) -> str:
    kind = draws.one(theme.media)
    medium, quality = draws.one(vocabulary.media[kind]), draws.one(vocabulary.words.qualities)
    head = draws.one(_HEADS)
    opening = head.format(
        subject=draws.one(theme.subjects),
        place=draws.one(theme.places),
        action=draws.one(theme.actions) if theme.actions else "",
        medium=medium,
        a_medium=with_article(medium),
        quality=quality,
        a_quality=with_article(quality),
        mood=draws.one(vocabulary.words.moods),
    )
    tail = _tail(vocabulary, theme, kind, draws)
    if "medium" not in head and tail and draws.below(2):
        tail.insert(draws.below(len(tail) + 1), medium)
    parts = [
        " ".join(opening.split()).replace(" ,", ","),
        *(part for part in tail if part not in opening),
    ]
    return _punctuate(parts, style=draws.below(16))


def _tail(vocabulary: Vocabulary, theme: _Theme, kind: str, draws: _Draws) -> list[str]:
    """Draw modifiers: the light first, often a mood or colours, then terms of the medium."""
    length = draws.one(_TAIL_LENGTHS)
    tail: list[str] = []
    if length and draws.below(3):
        tail.append(draws.one(vocabulary.light[draws.one(theme.light)]))
    if length > 1 and not draws.below(4):
        tail.append(draws.one(vocabulary.words.moods))
    if length > 1 and not draws.below(4):
        tail.append(draws.one(vocabulary.words.colours))
    terms = vocabulary.words.photo if kind in _PHOTO_KINDS else vocabulary.words.art
    return tail + draws.several(terms, length - len(tail))


def _punctuate(parts: list[str], *, style: int) -> str:
    """Join with commas; some styles use sentences, a capital, or no comma between two parts."""
    if style == 0:
        return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)
    text = (" " if style == 1 and len(parts) == 2 else ", ").join(parts)
    return text[0].upper() + text[1:] if style == 2 else text
