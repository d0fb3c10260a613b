"""How likely the printed prompt is close to the true one, as it was measured for one encoder and one size of corpus.

Logistic regression (Platt 1999) on three cosines that every prediction has;
`evaluation/calibration.py` fits it out of fold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

CLOSE_COSINE = 0.6
"""MiniLM cosine from which the printed prompt counts as close to the true one: much of the same, said differently."""

ABSTAIN_BELOW = 0.1
"""Below this probability the answer is "nothing in the corpus is close"; the best guess is shown all the same."""

SIZE_FACTOR = 2.0
"""A calibration holds for corpora of at most this many times the rows that it was made with, and at least that part of them."""

NEAREST = 10
"""How many of the nearest prompts' scores count."""


class ConfidenceFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What a prediction shows of its own quality, three cosines.

    `nearness`: mean score of the ten nearest prompts in the index space. `wording`: of the printed
        prompt with the blend.
    `agreement`: mean of the contributions with the blend, by share.
    """

    nearness: float
    wording: float
    agreement: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """P(close) = 1 / (1 + exp(-(intercept + coefficients · signs))) for one encoder and a corpus of about `rows` prompts.

    `close` is the cosine from which a prompt counted as close. What was measured out of fold on
    `pairs` pairs: `base_rate` of close answers, expected calibration error `ece`, and `auroc` of
    telling close answers from others.
    """

    encoder: str
    space: str
    rows: int
    close: float
    intercept: float
    nearness: float
    wording: float
    agreement: float
    pairs: int
    base_rate: float
    ece: float
    auroc: float

    def probability(self, signs: ConfidenceFeatures) -> float:
        """0 to 1."""
        logit = (
            self.intercept
            + self.nearness * signs.nearness
            + self.wording * signs.wording
            + self.agreement * signs.agreement
        )
        return 1 / (1 + math.exp(-max(min(logit, 700.0), -700.0)))

    def holds_for(self, *, encoder: str, space: str, rows: int) -> bool:
        """Whether it was made with this encoder and a corpus of about this size."""
        return (self.encoder, self.space) == (
            encoder,
            space,
        ) and 1 / SIZE_FACTOR <= rows / self.rows <= SIZE_FACTOR


def find_calibration(
    calibrations: Iterable[Calibration], *, encoder: str, space: str, rows: int
) -> Calibration | None:
    """The one that holds for this encoder and size of corpus and was made with the nearest number of rows; None without one."""
    fitting = [
        made for made in calibrations if made.holds_for(encoder=encoder, space=space, rows=rows)
    ]
    return min(fitting, key=lambda made: abs(math.log(made.rows / rows)), default=None)


def nearness(scores: Sequence[float]) -> float:
    """The mean of the first ten scores, of fewer where fewer prompts were found.

    Args:
        scores: falling; -inf where there is no prompt.
    """
    found = [score for score in scores[:NEAREST] if math.isfinite(score)]
    return math.fsum(found) / len(found) if found else -1.0
