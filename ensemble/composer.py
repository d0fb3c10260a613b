"""Compose a prompt for a picture: a subject and a few phrases, together nearest to the blend.

The search is greedy, like CLIP Interrogator's (`Interrogator.chain`), but it takes phrases of the
prompts around the picture. MiniLM judges them by the blend, as in the competition. Where the index
has a text tower of its own, such as CLIP's, that judges them by the picture, as CLIP Interrogator
does, and the two scores are mixed. A linear approximation ranks the phrases that could follow, and
only the best few are judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
PICTURE_SHARE = 0.5
"""The weight of the cosine with the picture, where there is one; the blend's score has the rest."""
SEEN_BONUS = 0.1
"""What a first subject gains in the choice if it names what an encoder sees."""
LEAST_GAIN = 0.002
"""How much a phrase must add to the score to be taken."""
N_JUDGED = 16
"""How many of the phrases that could follow are judged."""
MOST_KEPT = 20_000
"""How many phrases' vectors an encoder keeps; 30 MB of MiniLM's."""


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
        texts: the text tower of the pictures' space, which judges beside MiniLM; None for none.
    """

    def __init__(self, minilm: TextEncoder, texts: TextEncoder | None = None) -> None:
        self._minilm = _PhraseRows(minilm)
        self._texts = None if texts is None else _PhraseRows(texts)

    def compose(
        self, targets: Vectors, candidates: Sequence[Candidates], pictures: Vectors | None = None
    ) -> list[Composition]:
        """Return a prompt for each of n pictures; an empty one where there is nothing to say.

        Args:
            targets: (n, 384) unit rows in MiniLM space that the prompts should be near to.
            candidates: what each prompt may be made of.
            pictures: (n, dim) unit rows of the pictures; only read by `texts`.
        """
        phrases = {phrase.text for each in candidates for phrase in (*each.subjects, *each.details)}
        encoders = [self._minilm]
        goals: list[list[_Goal]] = [[_Blend.of(target)] for target in targets]
        if self._texts is not None and pictures is not None:
            encoders.append(self._texts)
            for judges, picture in zip(goals, pictures, strict=True):
                judges.append(_Picture(picture))
        rows = [encoder.rows(phrases) for encoder in encoders]
        drafts = {
            number: _Draft(judges, each, rows)
            for number, (judges, each) in enumerate(zip(goals, candidates, strict=True))
            if each.subjects
        }
        growing = [*drafts.values()]
        for _ in range(MOST_PHRASES - 1):
            growing = _grown(growing, [encoder.texts for encoder in encoders])
        return [
            drafts[number].composition() if number in drafts else Composition("", (), 0.0)
            for number in range(len(candidates))
        ]


class _PhraseRows:
    """A text encoder with the vectors of the phrases that it has encoded."""

    def __init__(self, texts: TextEncoder) -> None:
        self.texts = texts
        self._rows: dict[str, NDArray[np.float32]] = {}

    def rows(self, phrases: set[str]) -> Mapping[str, NDArray[np.float32]]:
        """Return the unit rows of at least these phrases."""
        known = self._rows  # read once: another thread may replace it
        if new := sorted(phrases - known.keys()):
            if len(known) + len(new) > MOST_KEPT:
                known = {text: known[text] for text in phrases & known.keys()}
            self._rows = known = known | dict(zip(new, self.texts.encode(new), strict=True))
        return known


def _grown(drafts: Sequence[_Draft], encoders: Sequence[TextEncoder]) -> list[_Draft]:
    """Let each draft take one phrase, and return those that did."""
    asked = [(draft, phrases) for draft in drafts if (phrases := draft.following())]
    texts = [f"{draft.text}, {phrase.text}" for draft, phrases in asked for phrase in phrases]
    if not texts:
        return []
    ends = np.cumsum([len(phrases) for _, phrases in asked])[:-1]
    parts = [np.split(encoder.encode(texts), ends) for encoder in encoders]
    return [
        draft
        for (draft, phrases), *rows in zip(asked, *parts, strict=True)
        if draft.take(phrases, rows)
    ]


class _Goal(Protocol):
    """What a prompt should be near to in one space."""

    @property
    def row(self) -> NDArray[np.float32]:
        """Return its (dim,) unit row."""
        ...

    def scores(self, rows: Vectors) -> NDArray[np.float32]:
        """Return (n,) scores of unit rows, -1 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class _Blend:
    """The blend, as it is and without the mean prompt, which is near to every prompt."""

    row: NDArray[np.float32]
    centred: NDArray[np.float32]

    @classmethod
    def of(cls, row: NDArray[np.float32]) -> _Blend:
        return cls(row, unit_rows((row - prompt_mean())[None])[0])

    def scores(self, rows: Vectors) -> NDArray[np.float32]:
        centred = unit_rows(rows - prompt_mean()) @ self.centred
        return np.asarray((1 - CENTRED_SHARE) * (rows @ self.row) + CENTRED_SHARE * centred)


@dataclass(frozen=True, slots=True)
class _Picture:
    """The picture in the space of the index."""

    row: NDArray[np.float32]

    def scores(self, rows: Vectors) -> NDArray[np.float32]:
        return np.asarray(rows @ self.row)


class _Draft:
    """A prompt that grows phrase by phrase; it has a row, and a goal for it, in each space.

    Args:
        goals: the blend's first.
        rows: the vectors of all candidates, for each goal.
    """

    def __init__(
        self,
        goals: Sequence[_Goal],
        candidates: Candidates,
        rows: Sequence[Mapping[str, NDArray[np.float32]]],
    ) -> None:
        self._goals = goals
        self._details = candidates.details
        self._detail_rows = [_rows_of(candidates.details, each) for each in rows]
        subject_rows = [_rows_of(candidates.subjects, each) for each in rows]
        self._weights = _weights(
            [
                np.concatenate([goal.scores(each) for each in (first, second) if len(each)])
                for goal, first, second in zip(goals, subject_rows, self._detail_rows, strict=True)
            ]
        )
        scores = self._scores(subject_rows)
        best = int((scores + SEEN_BONUS * candidates.seen).argmax())
        self.phrases = [candidates.subjects[best]]
        self._rows = [each[best] for each in subject_rows]
        self._score = float(scores[best])

    @property
    def text(self) -> str:
        return ", ".join(phrase.text for phrase in self.phrases)

    def composition(self) -> Composition:
        cosine = float(self._rows[0] @ self._goals[0].row)
        return Composition(self.text, tuple(self.phrases), cosine)

    def following(self) -> list[Phrase]:
        """Return the phrases most likely to bring the prompt nearer to its goals.

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
        likely = [
            unit_rows(n_words * row + lengths[:, None] * rows[allowed])
            for row, rows in zip(self._rows, self._detail_rows, strict=True)
        ]
        order = np.argsort(-self._scores(likely), kind="stable")[:N_JUDGED]
        return [self._details[allowed[place]] for place in order]

    def take(self, phrases: Sequence[Phrase], rows: Sequence[Vectors]) -> bool:
        """Append the best of n phrases; False if none helps.

        Args:
            rows: the (n, dim) unit rows of the prompts that end with each phrase, in each space.
        """
        scores = self._scores(rows)
        best = int(scores.argmax())
        if scores[best] < self._score + LEAST_GAIN:
            return False
        self.phrases.append(phrases[best])
        self._rows, self._score = [each[best] for each in rows], float(scores[best])
        return True

    def _scores(self, rows: Sequence[Vectors]) -> NDArray[np.float32]:
        """Return (n,) scores of n texts, from their (n, dim) rows in each space."""
        parts = zip(self._weights, self._goals, rows, strict=True)
        return np.asarray(sum(weight * goal.scores(each) for weight, goal, each in parts))


def _rows_of(
    phrases: Sequence[Phrase], rows: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    return np.array([rows[phrase.text] for phrase in phrases])


def _weights(scores: Sequence[NDArray[np.float32]]) -> list[float]:
    """Return the weight of each goal's scores in a draft's: the blend's, and the picture's if any.

    Cosines with a picture differ less than those of texts, so they are put on the scale of the
    blend's scores by the standard deviations of both.

    Args:
        scores: (n,) of all candidates, for each goal.
    """
    if len(scores) == 1:
        return [1.0]
    blend, picture = (float(each.std()) for each in scores)
    if picture == 0:  # a picture that every phrase is equally near to tells nothing
        return [1.0, 0.0]
    return [1 - PICTURE_SHARE, PICTURE_SHARE * blend / picture]
