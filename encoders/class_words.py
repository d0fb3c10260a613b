"""Words for what the image trunks see: ImageNet's classes and their parents as plain nouns.

`class_words.json` holds the names of the 1,000 classes, the parents (a word for several classes,
mostly from WordNet), and the classes that are never named. `benchmarks/class_words.py` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import WeightsRejected
from imprompt.encoders.efficientnet import CLASSES

WORDS_PATH = Path(__file__).with_name("class_words.json")
MOST_WORDS = 3
CLASS_LEAST = 0.3
"""The probability from which a class is named."""

CLASS_SHARE = 0.5
"""A class is named if it has this share of the probability of each parent that could replace it."""


@dataclass(frozen=True, slots=True)
class SeenWord:
    """A word for what a picture shows, without an article, and its probability (0 to 1)."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class SeenWords:
    """Words for what a picture shows, likeliest first.

    `nouns` name the classes that the trunks of `lite` tell apart, so a prompt may begin with one;
    `tags` are words of prompts that its head has learned: things, media, styles, light, colours.
    """

    nouns: tuple[SeenWord, ...] = ()
    tags: tuple[SeenWord, ...] = ()


NOTHING_SEEN = SeenWords()


class Parent(msgspec.Struct, frozen=True):
    """A word for several classes (0 to 999), said if they sum to `least` or more."""

    classes: tuple[int, ...]
    least: float


class ClassVocabulary(msgspec.Struct, frozen=True):
    """All words: the classes' names by number, the parents by word, and the names never said."""

    names: tuple[str, ...]
    parents: dict[str, Parent]
    unsaid: frozenset[str]


@cache
def vocabulary() -> ClassVocabulary:
    """Return the shipped words.

    Raises:
        WeightsRejected: the file is missing or damaged.
    """
    try:
        return msgspec.json.decode(WORDS_PATH.read_bytes(), type=ClassVocabulary)
    except (OSError, msgspec.MsgspecError) as error:
        raise WeightsRejected(
            f"{WORDS_PATH} does not hold the words of the classes: {error}.",
            path=WORDS_PATH,
            hint="Install imprompt again.",
        ) from error


def class_words(logits: Sequence[NDArray[np.float32]]) -> list[tuple[SeenWord, ...]]:
    """Return up to three words for each of n pictures, the likeliest first; none if none is sure.

    No two words of a picture share a class, so none is the parent of another.

    Args:
        logits: (n, 1000) of each trunk; the mean of their probabilities counts.
    """
    chances = np.mean([_softmax(rows) for rows in logits], axis=0)
    return [_words(row) for row in chances]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _words(chances: NDArray[np.float64]) -> tuple[SeenWord, ...]:
    """Return the words of one picture, from its (1000,) probabilities."""
    known = vocabulary()
    sums = chances @ _members()
    parents = {
        word: (frozenset(parent.classes), float(chance))
        for (word, parent), chance in zip(known.parents.items(), sums, strict=True)
        if chance >= parent.least
    }
    taken: set[int] = set()
    said: list[SeenWord] = []
    for index in np.flatnonzero(chances >= CLASS_LEAST).tolist():
        chance = float(chances[index])
        rivals = [total for classes, total in parents.values() if index in classes]
        if known.names[index] not in known.unsaid and chance >= CLASS_SHARE * max(
            rivals, default=0
        ):
            said.append(SeenWord(known.names[index], chance))
            taken.add(index)
    # The smallest parent that is sure enough is the most specific one.
    for word, (classes, total) in sorted(parents.items(), key=lambda item: len(item[1][0])):
        if not taken & classes:
            said.append(SeenWord(word, min(total, 1.0)))
            taken |= classes
    return tuple(sorted(said, key=lambda word: -word.probability)[:MOST_WORDS])


@cache
def _members() -> NDArray[np.float64]:
    """Return (1000, parents) with 1 where a class belongs to a parent."""
    parents = vocabulary().parents.values()
    members = np.zeros((CLASSES, len(parents)))
    for column, parent in enumerate(parents):
        members[list(parent.classes), column] = 1
    return members
