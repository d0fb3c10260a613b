"""How well a head of `lite` says the tags of images: a table for `lite_head.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.lite_study import Study
from imprompt.core.metrics import average_precision
from imprompt.core.values import Ids
from imprompt.encoders.lite_head import MOST_TAGS, TAG_LEAST
from imprompt.ensemble.training.head_regression import group_weights
from imprompt.ensemble.training.label_regression import FittedLabels, fit_labels, tags_to_keep

LEAST_POSITIVES = 5
BINS = 10

Flags = NDArray[np.bool_]
Chances = NDArray[np.float64]


def tag_table(study: Study) -> list[str]:
    """Return the lines of the table."""
    first, further = study.generated & study.first, study.generated & ~study.first
    lines = [
        "",
        "## Tags",
        "",
        "Tags are chosen by the rule of `train` on the pairs that are not measured (the other "
        "generated images, and photographs); their probabilities come from five folds of all "
        f"pairs. *AP*: mean average precision of the tags with at least {LEAST_POSITIVES} images; "
        "*chance*: of a random order. *First ten*: the share of the chosen tags in the texts that "
        "is among the ten likeliest of their image; *commonest ten*: among the ten commonest tags "
        f"of the training rows. *Said*: tags of probability {TAG_LEAST} or more, ten at most. "
        f"*Calibration error*: mean distance of probability and rate, {BINS} bins of equal width, "
        "over all images and tags.",
        "",
        "| images | tags chosen | tags measured | AP | chance | first ten | commonest ten | "
        "said an image | said, mean probability | said, in the text | calibration error |",
        f"|{' --- |' * 11}",
    ]
    choices = {name: _choose(study, ~rows) for name, rows in _sets(first, further).items()}
    union = np.unique(np.concatenate(list(choices.values())))
    chances, common = _out_of_fold(study, union)
    for name, rows in _sets(first, further).items():
        columns = np.searchsorted(union, choices[name])
        held = study.tags[np.ix_(rows, choices[name])]
        cells = _cells(held, chances[rows][:, columns], common[rows][:, columns])
        lines.append(f"| {name} (n = {int(rows.sum()):,}) | {len(columns)} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def _sets(first: Flags, further: Flags) -> dict[str, Flags]:
    named = {"generated, first file": first, "generated, further files": further}
    return {name: rows for name, rows in named.items() if rows.any()}


def _choose(study: Study, chosen: Flags) -> Ids:
    rows = np.flatnonzero(chosen)
    labels = _fit(study, rows, study.tags[rows])
    return tags_to_keep(study.tags[rows], labels.precision)


def _fit(study: Study, rows: Ids, tags: Flags) -> FittedLabels:
    groups = study.groups[rows]
    return fit_labels(
        study.inputs(study.fit(rows), rows), tags, groups=groups, row_weights=group_weights(groups)
    )


def _out_of_fold(study: Study, columns: Ids) -> tuple[Chances, Chances]:
    """Return (n, t) probabilities of tags, and their rates in the training rows."""
    tags = study.tags[:, columns]
    chances, common = np.zeros(tags.shape), np.zeros(tags.shape)
    for train, test in study.folds:
        labels = _fit(study, train, tags[train])
        logits = study.inputs(study.fit(train), test) @ labels.weight * labels.slope
        logits = np.clip(logits + labels.intercept, -50, 50)
        chances[test] = 1 / (1 + np.exp(-logits.astype(np.float64)))
        common[test] = tags[train].mean(axis=0)
    return chances, common


def _cells(held: Flags, chances: Chances, common: Chances) -> list[str]:
    measured = np.flatnonzero(held.sum(axis=0) >= LEAST_POSITIVES)
    precision = [average_precision(chances[:, tag], held[:, tag]) for tag in measured]
    leading = _first(chances)
    said = leading & (chances >= TAG_LEAST)
    figures = [
        np.mean(precision),
        held[:, measured].mean(),
        held[leading].sum() / held.sum(),
        held[_first(common)].sum() / held.sum(),
        said.sum() / len(held),
        chances[said].mean(),
        held[said].mean(),
    ]
    return [
        str(len(measured)),
        *(f"{figure:.3f}" for figure in figures[:4]),
        f"{figures[4]:.1f}",
        *(f"{figure:.3f}" for figure in figures[5:]),
        f"{_calibration_error(chances, held):.4f}",
    ]


def _first(chances: Chances) -> Flags:
    """Return which tags are among the ten likeliest of each image."""
    order = np.argsort(-chances, axis=1, kind="stable")[:, :MOST_TAGS]
    chosen = np.zeros(chances.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def _calibration_error(chances: Chances, held: Flags) -> float:
    bins = np.minimum((chances * BINS).astype(int), BINS - 1).ravel()
    gaps = np.bincount(bins, (chances - held).ravel(), minlength=BINS)
    return float(np.abs(gaps).sum() / chances.size)
