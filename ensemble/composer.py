"""Compose a prompt for a picture: a subject and a few phrases, together nearest to the blend.

The search is greedy, like CLIP Interrogator's (`Interrogator.chain`), but it takes phrases of the
prompts around the picture, and MiniLM judges them, as in the competition. A linear approximation
ranks the phrases that could follow, and only the best few are judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import TextEncoder
from imprompt.core.values import Phrase, Role, Vectors, unit_rows
from imprompt.encoders.lite import prompt_mean
from imprompt.ensemble.phrases import Candidates, content_words, contradicts, repeats, words

MOST_WORDS = 24
"""The most words of a prompt."""
MOST_PHRASES = 9
"""The most phrases of a prompt, the first subject included."""
MOST_OF_ROLE: Mapping[Role, int] = {
    "subject": 3,
    "medium": 2,
    "style": 2,
    "artist": 2,
    "light": 2,
    "composition": 2,
    "colour": 1,
    "quality": 2,
}
"""How many phrases of each role a prompt holds at most; the first subject is one of three."""

CENTRED_SHARE = 0.7
"""The weight of the centred cosine in the score; the plain cosine has the rest."""
SEEN_BONUS = 0.1
"""What a first subject gains in the choice if it names what an encoder sees."""
LEAST_GAIN = 0.002
"""How much a phrase must add to the score to be taken."""
N_JUDGED = 16
"""How many of the phrases that could follow MiniLM judges."""
MOST_KEPT = 20_000
"""How many phrases' vectors are kept; 30 MB."""


@dataclass(frozen=True, slots=True)
class Composition:
    """A prompt, its phrases in order, and its cosine with the target."""

    prompt: str
    phrases: tuple[Phrase, ...]
    cosine: float


class Composer:
    """Composes prompts, and keeps the vectors of phrases, which recur from picture to picture.

    Args:
        minilm: encodes phrases and the prompts that it judges.
    """

    def __init__(self, minilm: TextEncoder) -> None:
        self._minilm = minilm
        self._rows: dict[str, NDArray[np.float32]] = {}

    def compose(self, targets: Vectors, candidates: Sequence[Candidates]) -> list[Composition]:
        """Return a prompt for each of n pictures; an empty one where there is nothing to say.

        Args:
            targets: (n, 384) unit rows in MiniLM space that the prompts should be near to.
            candidates: what each prompt may be made of.
        """
        phrases = {phrase.text for each in candidates for phrase in (*each.subjects, *each.details)}
        rows = self._phrase_rows(phrases)
        drafts = {
            number: _Draft(_Target.of(target), each, rows)
            for number, (target, each) in enumerate(zip(targets, candidates, strict=True))
            if each.subjects
        }
        growing = [*drafts.values()]
        for _ in range(MOST_PHRASES - 1):
            growing = self._grown(growing)
        return [
            drafts[number].composition() if number in drafts else Composition("", (), 0.0)
            for number in range(len(candidates))
        ]

    def _phrase_rows(self, phrases: set[str]) -> dict[str, NDArray[np.float32]]:
        known = self._rows  # read once: another thread may replace it
        if new := sorted(phrases - known.keys()):
            if len(known) + len(new) > MOST_KEPT:
                known = {text: known[text] for text in phrases & known.keys()}
            self._rows = known = known | dict(zip(new, self._minilm.encode(new), strict=True))
        return known

    def _grown(self, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Let each draft take one phrase, and return those that did."""
        asked = [(draft, phrases) for draft in drafts if (phrases := draft.following())]
        texts = [f"{draft.text}, {phrase.text}" for draft, phrases in asked for phrase in phrases]
        if not texts:
            return []
        ends = np.cumsum([len(phrases) for _, phrases in asked])[:-1]
        parts = np.split(self._minilm.encode(texts), ends)
        return [
            draft
            for (draft, phrases), rows in zip(asked, parts, strict=True)
            if draft.take(phrases, rows)
        ]


@dataclass(frozen=True, slots=True)
class _Target:
    """A target, as it is and without the mean prompt, which is near to every prompt."""

    row: NDArray[np.float32]
    centred: NDArray[np.float32]

    @classmethod
    def of(cls, row: NDArray[np.float32]) -> _Target:
        return cls(row, unit_rows((row - prompt_mean())[None])[0])

    def scores(self, rows: Vectors) -> NDArray[np.float32]:
        """Return (n,) scores of unit rows, -1 to 1."""
        centred = unit_rows(rows - prompt_mean()) @ self.centred
        return np.asarray((1 - CENTRED_SHARE) * (rows @ self.row) + CENTRED_SHARE * centred)


class _Draft:
    """A prompt that grows phrase by phrase."""

    def __init__(
        self, target: _Target, candidates: Candidates, rows: Mapping[str, NDArray[np.float32]]
    ) -> None:
        self._target = target
        self._details = candidates.details
        self._detail_rows = np.array([rows[phrase.text] for phrase in candidates.details])
        subject_rows = np.array([rows[phrase.text] for phrase in candidates.subjects])
        scores = target.scores(subject_rows)
        best = int((scores + SEEN_BONUS * candidates.seen).argmax())
        self.phrases = [candidates.subjects[best]]
        self.row = subject_rows[best]
        self.score = float(scores[best])

    @property
    def text(self) -> str:
        return ", ".join(phrase.text for phrase in self.phrases)

    def composition(self) -> Composition:
        return Composition(self.text, tuple(self.phrases), float(self.row @ self._target.row))

    def following(self) -> list[Phrase]:
        """Return the phrases most likely to bring the prompt nearer to the target.

        A text's vector is nearly the mean of its phrases' vectors, weighted by their lengths.
        """
        text = self.text
        n_words, said = len(text.split()), content_words(text)
        spoken, roles = frozenset(words(text)), Counter(phrase.role for phrase in self.phrases)
        allowed = [
            place
            for place, phrase in enumerate(self._details)
            if n_words + len(phrase.text.split()) <= MOST_WORDS
            and roles[phrase.role] < MOST_OF_ROLE[phrase.role]
            and not repeats(said, phrase.text)
            and not contradicts(spoken, phrase.text)
        ]
        if not allowed:
            return []
        lengths = np.array([len(self._details[place].text.split()) + 1 for place in allowed])
        likely = unit_rows(n_words * self.row + lengths[:, None] * self._detail_rows[allowed])
        order = np.argsort(-self._target.scores(likely), kind="stable")[:N_JUDGED]
        return [self._details[allowed[place]] for place in order]

    def take(self, phrases: Sequence[Phrase], rows: Vectors) -> bool:
        """Append the best of the phrases, of which `rows` are the prompts; False if none helps."""
        scores = self._target.scores(rows)
        best = int(scores.argmax())
        if scores[best] < self.score + LEAST_GAIN:
            return False
        self.phrases.append(phrases[best])
        self.row, self.score = rows[best], float(scores[best])
        return True
