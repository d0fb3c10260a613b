"""Attempts on the head of `lite` that answer by kinds of pictures, such as paintings or renders.

A kind is read from the words of a prompt. How likely a picture is of each kind is learned as the
shipped labels are: a ridge map, and a logistic regression of its out-of-fold scores.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.lite_study import Fold, Study
from imprompt.core.logistic import sigmoid
from imprompt.core.splits import group_folds
from imprompt.ensemble.ridge import Matrix, ridge
from imprompt.ensemble.training.label_regression import LABEL_PENALTY, fit_labels

KINDS = {
    "photograph": r"photos?|photograph\w*|photo-?realis\w+|hyper-?realis\w+|dslr|\d\d ?mm|bokeh"
    r"|selfie|snapshot|polaroid|film grain|kodak|canon|nikon",
    "painting": r"paint(ing|ed|erly)s?|oil on canvas|watercolou?rs?|gouache|acrylics?|impasto"
    r"|impressionis[mt]\w*|fresco|concept art|artstation|digital art|splash art",
    "drawing": r"sketch\w*|drawings?|drawn|line ?art|pencil|charcoal|ink|engraving|etching"
    r"|woodcut|linocut|crayon|doodle|illustrat\w+|vector|flat design|clip ?art|storybook",
    "anime or cartoon": r"anime|manga|chibi|waifu|ghibli|1girl|1boy|kawaii|cartoon\w*|comics?"
    r"|pixar|disney|caricature|graphic novel",
    "render": r"3d|render(s|ed|ing)?|octane|unreal engine|blender|cgi|c4d|cinema ?4d"
    r"|ray ?trac\w+|isometric|low ?poly|claymation|voxel",
    "pixel art": r"pixel ?art|pixelated|8-?bit|16-?bit|sprites?",
    "poster with text": r"posters?|logos?|typograph\w+|infographics?|lettering|banners?"
    r"|(magazine|book|album) covers?|screenshots?|user interface|diagrams?|packaging",
}
"""The kinds and the words by which a prompt names them. Captions of photographs name none: those
pictures count as photographs."""

USES = ("intercepts", "low rank", "heads", "true intercepts")
"""What is done with the probabilities of the kinds.

"intercepts": they are further inputs of the maps. "low rank": so are their products with the
leading components. "heads": each kind has maps of its own, to which a pair counts as it is likely
to be of the kind, and the answers are mixed alike. "true intercepts": as "intercepts", but with
what the true prompts say, which no product can know: the most that intercepts could give.
"""

CORRECTED_DIM = 64
"""The leading components that "low rank" multiplies by each kind."""

HEAD_FLOOR = 0.2
"""How much a pair counts in the maps of a kind that it is not of."""

_NO_KIND = 0.1
_FOLDS = 3

System = tuple[Matrix, float]
"""Targets and penalty."""


def answers_by_kind(
    study: Study,
    use: str,
    inputs: Matrix,
    fold: Fold,
    systems: list[System],
    weights: NDArray[np.float64],
) -> list[Matrix]:
    """Return the answers to the test rows of a fold, an array for each system.

    Args:
        study: the pairs.
        use: one of `USES`.
        inputs: (n, p) of all rows, as `imprompt.encoders.lite_head.expanded` makes them.
        fold: training and test rows.
        systems: targets of the training rows, and penalty, of each map.
        weights: (m,) of the training rows, of mean 1.
    """
    if use == "true intercepts":
        learned, asked = (true_kinds(study)[rows].astype(np.float32) for rows in fold)
    else:
        learned, asked = kind_chances(study, inputs, fold, weights)
    if use == "heads":
        return _mixed_heads(inputs, fold, (learned, asked), systems, weights)
    mean = np.average(learned, axis=0, weights=weights).astype(np.float32)
    blocks = [[learned - mean], [asked - mean]]
    if use == "low rank":
        for block, rows in zip(blocks, fold, strict=True):
            leading = inputs[rows, :CORRECTED_DIM]
            products = block[0][:, :, None] * leading[:, None, :]
            block.append(products.reshape(len(rows), -1))
    left, right = (
        np.hstack([inputs[rows], *block]) for rows, block in zip(fold, blocks, strict=True)
    )
    return _solved(left, right, systems, weights)


@cache
def true_kinds(study: Study) -> NDArray[np.bool_]:
    """Return (n, kinds): which kinds each prompt names."""
    found = np.zeros((len(study.rows), len(KINDS)), dtype=bool)
    for column, (name, words) in enumerate(KINDS.items()):
        pattern = re.compile(rf"(?i)\b({words})\b")
        found[:, column] = [bool(pattern.search(row.texts[0])) for row in study.rows]
        found[~study.generated, column] = name == "photograph"
    return found


def kind_chances(
    study: Study, inputs: Matrix, fold: Fold, weights: NDArray[np.float64]
) -> tuple[Matrix, Matrix]:
    """Return (m, kinds) probabilities of the training rows, out of fold, and those of the test."""
    train, test = fold
    key = _key(fold)
    if key not in study.kind_chances:
        held, groups = true_kinds(study)[train], study.groups[train]
        labels = fit_labels(inputs[train], held, groups=groups, row_weights=weights)
        scores = np.zeros(held.shape, np.float32)
        for part, rest in group_folds(groups, _FOLDS, seed=0):
            rates = np.average(held[part], axis=0, weights=weights[part]).astype(np.float32)
            scores[rest] = inputs[train[rest]] @ ridge(
                inputs[train[part]],
                held[part].astype(np.float32) - rates,
                penalty=LABEL_PENALTY,
                row_weights=weights[part],
            )
        learned, asked = (
            sigmoid((rows * labels.slope + labels.intercept).astype(np.float64)).astype(np.float32)
            for rows in (scores, inputs[test] @ labels.weight)
        )
        study.kind_chances[key] = learned, asked
    return study.kind_chances[key]


def test_chances(study: Study, fold: Fold) -> Matrix:
    """Return the (n, kinds) probabilities of a fold's test rows, which an attempt has learned."""
    return study.kind_chances[_key(fold)][1]


def _key(fold: Fold) -> bytes:
    return fold[0].tobytes() + fold[1].tobytes()


def _mixed_heads(
    inputs: Matrix,
    fold: Fold,
    chances: tuple[Matrix, Matrix],
    systems: list[System],
    weights: NDArray[np.float64],
) -> list[Matrix]:
    learned, asked = (_shares(rows) for rows in chances)
    totals = [np.zeros((len(fold[1]), targets.shape[1]), np.float32) for targets, _ in systems]
    for kind in range(learned.shape[1]):
        trust = weights * (HEAD_FLOOR + (1 - HEAD_FLOOR) * learned[:, kind])
        answers = _solved(inputs[fold[0]], inputs[fold[1]], systems, trust / trust.mean())
        for total, answer in zip(totals, answers, strict=True):
            total += asked[:, kind, None] * answer
    return totals


def _shares(chances: Matrix) -> Matrix:
    """Return (n, kinds + 1) shares of sum 1; the last is that of no kind."""
    none = np.maximum(_NO_KIND, 1 - chances.sum(axis=1, keepdims=True))
    shares = np.hstack([chances, none])
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)


def _solved(
    inputs: Matrix, asked: Matrix, systems: list[System], weights: NDArray[np.float64]
) -> list[Matrix]:
    from scipy.linalg import cho_factor, cho_solve

    weighted = inputs * weights[:, None].astype(np.float32)
    moments = inputs.T @ weighted
    answers = []
    for targets, penalty in systems:
        system = moments.copy()
        system[np.diag_indices_from(system)] += penalty * len(inputs)
        factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        solution = cho_solve(factor, weighted.T @ targets.astype(np.float32), check_finite=False)
        answers.append(np.asarray(asked @ solution, dtype=np.float32))
    return answers
