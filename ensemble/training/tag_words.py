"""The words that a head of `lite` may learn to say: things, media, styles, light and colours.

`tag_words.txt` has one a line, kept by hand: words of prompts that tell what can be seen. A head
learns those that enough of its pairs hold and that it predicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORDS_PATH = Path(__file__).with_suffix(".txt")
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


@cache
def tag_words() -> tuple[str, ...]:
    """Return the words, in order; each has one or two parts."""
    return tuple(WORDS_PATH.read_text("utf-8").split("\n")[:-1])


def tags_held(texts: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Return (n, t): whether any text of each of n pairs holds each of the t words."""
    places = {word: place for place, word in enumerate(tag_words())}
    held = np.zeros((len(texts), len(places)), dtype=bool)
    for row, several in enumerate(texts):
        for text in several:
            words = _WORD.findall(text.casefold())
            pairs = (f"{first} {second}" for first, second in pairwise(words))
            held[row, [places[word] for word in (*words, *pairs) if word in places]] = True
    return held
