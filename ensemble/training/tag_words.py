"""The words that a head of `lite` may learn to say: things, media, styles, light and colours.

`tag_words.txt` has one a line, kept by hand: words of prompts that tell what can be seen. A head
learns those that enough of its pairs hold and that it predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.ensemble.phrases import words

WORDS_PATH = Path(__file__).with_suffix(".txt")


@cache
def tag_words() -> tuple[str, ...]:
    """Return the words, in order; each has one or two parts."""
    return tuple(WORDS_PATH.read_text("utf-8").splitlines())


def tags_held(texts: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Return (n, t): whether any text of each of n pairs holds each of the t words."""
    places = {word: place for place, word in enumerate(tag_words())}
    held = np.zeros((len(texts), len(places)), dtype=bool)
    for row, several in enumerate(texts):
        for text in several:
            said = words(text)
            pairs = (f"{first} {second}" for first, second in pairwise(said))
            held[row, [places[word] for word in (*said, *pairs) if word in places]] = True
    return held
