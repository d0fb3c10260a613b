"""Calibrate confidence, the probability that an answer is close, and measure it out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.logistic import logistic, sigmoid
from imprompt.core.values import EncoderSpec, Ids
from imprompt.ensemble.confidence import (
    ABSTAIN_BELOW,
    CLOSE_COSINE,
    Calibration,
    ConfidenceFeatures,
)
from imprompt.evaluation.pair_set import PairSet

BINS = 10
LEAST_CASES = 20
"""Calibration needs this many close answers, and as many others."""


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Answers of similar confidence: count, mean confidence, and the share that was close."""

    n: int
    confidence: float
    close: float


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of the confidence, out of fold, on the rows of the main kind.

    `ece`: expected calibration error. `auroc`: of telling close answers from others. `abstained`:
    share of answers below `threshold`; `abstained_right`: share of those that were indeed not
    close; `close_lost`: share of the close answers among them.
    """

    close: float
    pairs: int
    base_rate: float
    ece: float
    auroc: float
    threshold: float
    abstained: float
    abstained_right: float | None
    close_lost: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Out-of-fold `confidence` (n,), its `report`, and the `calibration` fitted on all folds."""

    confidence: NDArray[np.float64]
    report: CalibrationReport
    calibration: Calibration


def calibrate(
    features: Sequence[ConfidenceFeatures],
    printed: NDArray[np.float32],
    pairs: PairSet,
    *,
    spec: EncoderSpec,
    corpus_rows: int,
) -> Calibrated | None:
    """Fit P(close) on the rows of the main kind.

    Args:
        features: of each pair's prediction, out of fold.
        printed: (n,) cosine of the printed prompt with the truth.
        spec: the index's encoder.
        corpus_rows: of the index.

    Returns:
        None if any training set has fewer than `LEAST_CASES` answers that are close, or that are
        not.
    """
    values = np.array([[each.nearness, each.wording, each.agreement] for each in features])
    close = printed >= CLOSE_COSINE
    main = pairs.main_rows
    confidence = np.zeros(len(pairs))
    for fold in range(pairs.n_folds):
        train = pairs.training_rows(fold)
        if min(close[train].sum(), (~close[train]).sum()) < LEAST_CASES:
            return None
        test = pairs.of_fold(fold)
        confidence[test] = _probability(values[test], logistic(values[train], close[train]))
    report = _report(confidence, close, main)
    weights = logistic(values[main], close[main])
    calibration = Calibration(
        encoder=spec.name,
        space=spec.space,
        rows=corpus_rows,
        close=CLOSE_COSINE,
        intercept=round(float(weights[0]), 4),
        nearness=round(float(weights[1]), 4),
        wording=round(float(weights[2]), 4),
        agreement=round(float(weights[3]), 4),
        pairs=len(main),
        base_rate=round(report.base_rate, 4),
        ece=round(report.ece, 4),
        auroc=round(report.auroc, 4),
    )
    return Calibrated(confidence, report, calibration)


def expected_calibration_error(
    confidence: NDArray[np.float64], happened: NDArray[np.bool_]
) -> float:
    """Return the mean gap of confidence and frequency over the bins (Naeini et al. 2015)."""
    bins = reliability(confidence, happened)
    return sum(part.n * abs(part.confidence - part.close) for part in bins) / len(confidence)


def reliability(
    confidence: NDArray[np.float64], happened: NDArray[np.bool_]
) -> tuple[ReliabilityBin, ...]:
    """Return up to ten bins of equal counts, by rising confidence."""
    return tuple(
        ReliabilityBin(len(part), float(confidence[part].mean()), float(happened[part].mean()))
        for part in np.array_split(np.argsort(confidence, kind="stable"), BINS)
        if len(part)
    )


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive scores above a negative, a tie counting half.

    NaN without both a positive and a negative. From the rank sum (Mann and Whitney 1947).
    """
    _, positions, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[positions]
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    wins = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def _report(
    confidence: NDArray[np.float64], close: NDArray[np.bool_], rows: Ids
) -> CalibrationReport:
    confidence, close = confidence[rows], close[rows]
    abstained = confidence < ABSTAIN_BELOW
    return CalibrationReport(
        close=CLOSE_COSINE,
        pairs=len(rows),
        base_rate=float(close.mean()),
        ece=expected_calibration_error(confidence, close),
        auroc=auroc(confidence, close),
        threshold=ABSTAIN_BELOW,
        abstained=float(abstained.mean()),
        abstained_right=float((~close[abstained]).mean()) if abstained.any() else None,
        close_lost=float(abstained[close].mean()),
        bins=reliability(confidence, close),
    )


def _probability(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return sigmoid(weights[0] + values @ weights[1:])
