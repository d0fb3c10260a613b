"""Confidence: the probability that the printed prompt is close to the true one.

It is a logistic regression (Platt 1999) on three cosines of each prediction, fitted out of fold by
`evaluation/calibration.py` for one encoder and one size of corpus.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

CLOSE_COSINE = 0.6
"""MiniLM cosine from which a printed prompt counts as close to the true one: a paraphrase."""

ABSTAIN_BELOW = 0.1
"""Below this confidence the best guess is labelled "nothing in the corpus is close"."""

SIZE_FACTOR = 2.0
"""A calibration holds for corpora of up to this many times more or fewer rows."""

NEAREST = 10
"""The number of nearest prompts whose scores count."""


class ConfidenceFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """Three cosines that tell how good a prediction is.

    `nearness` is the mean score of the ten nearest prompts in the index space, `wording` that of
    the printed prompt with the blend, `agreement` the mean of the contributions with the blend,
    weighted by share.
    """

    nearness: float
    wording: float
    agreement: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Coefficients of the confidence for one encoder and a corpus of about `rows` prompts.

    P(close) = 1 / (1 + exp(-(intercept + coefficients · features))), where close means a cosine of
    at least `close`. The last fields were measured out of fold on `pairs` pairs: the `base_rate` of
    close prompts, the expected calibration error `ece`, and `auroc`.
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

    def probability(self, features: ConfidenceFeatures) -> float:
        """Return the confidence, 0 to 1."""
        logit = (
            self.intercept
            + self.nearness * features.nearness
            + self.wording * features.wording
            + self.agreement * features.agreement
        )
        return 1 / (1 + math.exp(-max(min(logit, 700.0), -700.0)))  # exp overflows beyond 709

    def holds_for(self, *, encoder: str, space: str, rows: int) -> bool:
        """Return whether it was measured with this encoder and a corpus of about this size."""
        same_space = (self.encoder, self.space) == (encoder, space)
        return same_space and 1 / SIZE_FACTOR <= rows / self.rows <= SIZE_FACTOR


def find_calibration(
    calibrations: Iterable[Calibration], *, encoder: str, space: str, rows: int
) -> Calibration | None:
    """Return the calibration that holds for this encoder and is nearest in rows, or None."""
    valid = [one for one in calibrations if one.holds_for(encoder=encoder, space=space, rows=rows)]
    return min(valid, key=lambda one: abs(math.log(one.rows / rows)), default=None)


def nearness(scores: Sequence[float]) -> float:
    """Return the mean of the first ten finite scores, or -1 without any.

    Args:
        scores: descending; -inf where there is no prompt.
    """
    finite = [score for score in scores[:NEAREST] if math.isfinite(score)]
    return math.fsum(finite) / len(finite) if finite else -1.0
