"""The figures of an evaluation, as plain values for JSON and for the page."""

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
    """The mean cosine of one answer with the truth."""

    answer: str
    cosine: Estimate


class Slice(msgspec.Struct, frozen=True):
    """Scores of all answers on some pairs; `by` is "all", "kind", "generator" or "length"."""

    by: str
    name: str
    n: int
    groups: int
    scores: tuple[AnswerScore, ...]


class Gain(msgspec.Struct, frozen=True):
    """The paired difference of two answers, and in words whether one earns its place."""

    answer: str
    against: str
    difference: Estimate
    earns_its_place: bool
    words: str


class PromptQuality(msgspec.Struct, frozen=True, kw_only=True):
    """The quality of one prompt for each pair of the main kind.

    `cosine` with the true prompt; `centred`: the same without the mean prompt, to which every
    prompt is near; `recall`: the share of the true prompt's content words in it; `words`: its mean
    length; `distinct`: the share of different prompts. A vector without a text has no words.
    """

    answer: str
    cosine: Estimate
    centred: Estimate
    recall: Estimate | None = None
    words: float | None = None
    distinct: float | None = None


class Recall(msgspec.Struct, frozen=True):
    """The share of pairs whose true prompt, planted in the corpus, is among the k nearest."""

    k: int
    share: Estimate


class Planted(msgspec.Struct, frozen=True):
    """AUROC of telling by a retrieval score whether the true prompt was planted; 0.5 is chance."""

    sign: str
    auroc: float


class FoldChoice(msgspec.Struct, frozen=True):
    """The weights and knn settings fitted for one fold on the others."""

    weights: dict[str, float]
    k: int
    power: float
    floor: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of an evaluation.

    `out_of_fold` says in words, for each part that learns from pairs, whether its figures are out
    of fold. Weights, gains, recall and confidence are of the pairs of `main_kind`. `removed` counts
    the corpus prompts left out because they are true texts of the pairs; `failed` lists the images
    that could not be read.
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
    prompts: tuple[PromptQuality, ...]
    recall: tuple[Recall, ...]
    planted: tuple[Planted, ...]
    fold_choices: tuple[FoldChoice, ...]
    calibration: CalibrationReport | None
    failed: tuple[tuple[str, str], ...]
    seconds: float


def estimate(values: NDArray[np.floating], pairs: PairSet, rows: Ids, *, label: str) -> Estimate:
    """Return the mean over `rows` with its 95 % interval, by resampling groups.

    Args:
        label: seeds the resampling, so that equal labels draw equal samples.
    """
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    return group_bootstrap(
        np.asarray(values)[rows], pairs.groups[rows], rng=rng, resamples=RESAMPLES
    )


def make_slices(scores: Scores, pairs: PairSet) -> tuple[Slice, ...]:
    """Score all answers on all slices of the pairs."""
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
    """Return the member with the highest mean cosine on these rows."""
    return max(members, key=lambda name: float(scores[name][rows].mean()))


def make_gains(scores: Scores, pairs: PairSet, members: Sequence[str]) -> tuple[Gain, ...]:
    """Compare the blend with its best member, and with itself without each member (main kind)."""
    best = best_member(scores, members, pairs.main_rows)
    title = f"The blend against its best member, {best},"
    return (
        _gain(scores, pairs, answer=BLEND, against=best, title=title),
        *(
            _gain(
                scores,
                pairs,
                answer=member,
                against=without(member),
                title=f"{member} in the blend",
            )
            for member in members
            if without(member) in scores
        ),
    )


def _gain(scores: Scores, pairs: PairSet, *, answer: str, against: str, title: str) -> Gain:
    difference = estimate(scores[BLEND] - scores[against], pairs, pairs.main_rows, label="gain")
    earns = difference.low > 0
    figures = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    if earns:
        finding = "earns its place"
    else:
        finding = "does not earn its place: the interval does not lie above zero"
    return Gain(answer, against, difference, earns, f"{title} {finding}: {figures}.")


def answer_order(members: Sequence[str], scores: Mapping[str, object]) -> list[str]:
    """Return the names of the answers in the order of a table's rows."""
    order = [CONSTANT, *members, *map(without, members), GIVEN, BLEND, PRINTED]
    return [name for name in order if name in scores]
