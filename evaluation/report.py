"""What an evaluation found, as plain values for JSON and for the page."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.metrics import Estimate, group_bootstrap
from imprompt.core.values import Ids
from imprompt.evaluation.calibration import CalibrationReport
from imprompt.evaluation.nested_cv import BLEND, CONSTANT, GIVEN, PRINTED, Scores, without
from imprompt.evaluation.pair_set import PairSet

RESAMPLES = 1000


class AnswerScore(msgspec.Struct, frozen=True):
    """An answer's mean cosine with the truth."""

    answer: str
    cosine: Estimate


class Slice(msgspec.Struct, frozen=True):
    """Scores of some of the pairs;

    `by` is "all", "kind", "generator" or "length". The constant stands beside every score.
    """

    by: str
    name: str
    n: int
    groups: int
    scores: tuple[AnswerScore, ...]


class Gain(msgspec.Struct, frozen=True):
    """How much better one answer is than another, pair by pair, and in plain words whether it earns its place."""

    answer: str
    against: str
    difference: Estimate
    earns_its_place: bool
    words: str


class Recall(msgspec.Struct, frozen=True):
    """How often the true prompt, were it in the corpus, would be among the k nearest in the index space."""

    k: int
    share: Estimate


class Planted(msgspec.Struct, frozen=True):
    """Telling a corpus with the true prompt from one without it by a retrieval score: area under the ROC curve, .5 is chance."""

    sign: str
    auroc: float


class FoldChoice(msgspec.Struct, frozen=True):
    """What was fitted for a fold on the others."""

    weights: dict[str, float]
    k: int
    power: float
    floor: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation.

    `out_of_fold` says of each thing that learns from pairs whether its figures are out of fold, in
    words. `main_kind` is what weights, gains, recall and confidence are about. `removed` counts
    prompts of the corpus that were taken out as true texts of the pairs; `failed` lists images that
    could not be read.
    """

    pairs: int
    groups: int
    folds: int
    main_kind: str
    encoder: str
    corpus_rows: int
    removed: int
    blend_config: str
    out_of_fold: tuple[tuple[str, str], ...]
    slices: tuple[Slice, ...]
    gains: tuple[Gain, ...]
    best_member: str
    recall: tuple[Recall, ...]
    planted: tuple[Planted, ...]
    fold_choices: tuple[FoldChoice, ...]
    calibration: CalibrationReport | None
    failed: tuple[tuple[str, str], ...]
    seconds: float


def estimate(values: NDArray[np.floating], pairs: PairSet, rows: Ids, *, label: str) -> Estimate:
    """The mean over `rows` with its 95 % interval, groups resampled; equal labels draw equal samples."""
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    return group_bootstrap(
        np.asarray(values)[rows], pairs.groups[rows], rng=rng, resamples=RESAMPLES
    )


def make_slices(scores: Scores, pairs: PairSet) -> tuple[Slice, ...]:
    """All answers over all slices of the pairs."""
    return tuple(
        Slice(
            by=by,
            name=name,
            n=len(rows),
            groups=len(np.unique(pairs.groups[rows])),
            scores=tuple(
                AnswerScore(answer, estimate(values, pairs, rows, label=name))
                for answer, values in scores.items()
            ),
        )
        for (by, name), rows in pairs.slices().items()
    )


def best_member(scores: Scores, members: Sequence[str], rows: Ids) -> str:
    """The member with the highest mean cosine on these rows."""
    return max(members, key=lambda name: float(scores[name][rows].mean()))


def make_gains(scores: Scores, pairs: PairSet, members: Sequence[str]) -> tuple[Gain, ...]:
    """The blend against its best member, and against itself without each member, on the rows of the main kind."""
    rows = np.flatnonzero(pairs.fitted_on)
    best = best_member(scores, members, rows)
    gains = [
        _gain(
            scores,
            pairs,
            rows,
            against=best,
            what=f"The blend against its best member, {best},",
            answer=BLEND,
        )
    ]
    for member in members:
        if without(member) in scores:
            what = f"{member} in the blend"
            gains.append(
                _gain(scores, pairs, rows, against=without(member), what=what, answer=member)
            )
    return tuple(gains)


def _gain(
    scores: Scores, pairs: PairSet, rows: Ids, *, against: str, what: str, answer: str
) -> Gain:
    difference = estimate(scores[BLEND] - scores[against], pairs, rows, label="gain")
    earns = difference.low > 0
    figures = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    prediction = (
        "earns its place"
        if earns
        else "does not earn its place: the interval does not lie above zero"
    )
    return Gain(answer, against, difference, earns, f"{what} {prediction}: {figures}.")


def answer_order(members: Sequence[str], scores: Mapping[str, object]) -> list[str]:
    """The names of answers as a table lists them: constant, members, leave-one-outs, the blend config as given, blend, printed prompt."""
    order = [CONSTANT, *members, *map(without, members), GIVEN, BLEND, PRINTED]
    return [name for name in order if name in scores]
