"""The attempts on the head of `lite`: sets of choices, all fitted by kernel ridge regression."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.lite_kinds import answers_by_kind
from benchmarks.lite_network import SEEN, Seen
from benchmarks.lite_study import Fold, Prediction, Study, brief_score
from imprompt.core.values import Ids, unit_rows
from imprompt.encoders.lite_head import BASIS_DIM, PAIRED_DIM, conse
from imprompt.ensemble.ridge import Matrix, block_scales
from imprompt.ensemble.training.head_regression import (
    INDEX_PENALTY,
    OUTPUT_PENALTY,
    PROMPT_MEAN_SHARE,
    HeadExamples,
    group_weights,
    source_mean,
    within_sources,
)

_WHOLE = ("whole",)


@dataclass(frozen=True, slots=True)
class Block:
    """A readout of a trunk ("pooled", "sqrt", "stages", "std", "conse" or "log-probabilities").

    What the trunk makes of several `views` of an image (`lite_network.view`) is averaged first.
    """

    trunk: str
    side_px: int
    read: str
    views: tuple[str, ...] = _WHOLE


@dataclass(frozen=True, slots=True)
class Attempt:
    """A set of choices; the defaults are those of the prototype, a plain ridge.

    `centre`: subtracted from the output map's targets ("all" the mean, "kind" the mean of the
    kind). `index`: the map of the index space ("output" the same, "shift" the same minus the
    intercept, "source" one within sources, "both" the mean of the two). `few`: rows of a rule of
    `ROWS` weigh `few_weight`. `kinds`: one of `lite_kinds.USES`.
    """

    name: str
    blocks: tuple[tuple[Block, float], ...]
    centre: str = "all"
    index: str = "output"
    captions: bool = False
    prompt_share: float = 0.0
    by_group: bool = False
    few: str = ""
    few_weight: float = 1.0
    penalty: float = 0.002
    index_penalty: float = 0.0008
    products: bool = False
    kinds: str = ""


def _trunk(
    trunk: str, side_px: int, share: float, views: tuple[str, ...] = _WHOLE
) -> tuple[tuple[Block, float], ...]:
    return (
        (Block(trunk, side_px, "sqrt", views), share),
        (Block(trunk, side_px, "stages", views), 2 * share),
    )


def _conse(side_px: int) -> tuple[Block, float]:
    return Block("lite2", side_px, "conse"), 0.7


_OLD: tuple[tuple[Block, float], ...] = (
    (Block("lite2", 260, "pooled"), 1.28),
    (Block("lite2", 260, "log-probabilities"), 1.0),
    (Block("lite2", 260, "conse"), 0.384),
)
_ROOTS: tuple[tuple[Block, float], ...] = ((Block("lite2", 260, "sqrt"), 1.0), _conse(260))
_LARGE = (*_trunk("lite2", 338, 1.0), _conse(338))
_BOTH = (*_LARGE, *_trunk("lite0", 224, 0.5))

_SHIFT = Attempt("… index map without the intercept", _OLD, index="shift")
_KIND = replace(_SHIFT, name="… targets centred by kind", blocks=_BOTH, centre="kind")
_GROUPS = replace(_KIND, name="… groups of g texts weigh √g", by_group=True)
_CAPTIONS = replace(_GROUPS, name="… all captions of a photograph", captions=True)
_LEANS = replace(
    _CAPTIONS, name="… intercept leans to the mean of many prompts", prompt_share=PROMPT_MEAN_SHARE
)
_BEFORE = replace(_LEANS, name="… index map averaged with one within sources", index="both")
SHIPPED = replace(
    _BEFORE,
    name="**shipped**: … products of leading components",
    products=True,
    penalty=OUTPUT_PENALTY,
    index_penalty=INDEX_PENALTY,
)
ATTEMPTS = [
    Attempt("plain ridge", _OLD),
    _SHIFT,
    replace(_SHIFT, name="… square roots, no log-probabilities", blocks=_ROOTS),
    replace(
        _SHIFT,
        name="… ends of the stages of lite2",
        blocks=(*_trunk("lite2", 260, 1.0), _conse(260)),
    ),
    replace(_SHIFT, name="… 338 px instead of 260", blocks=_LARGE),
    replace(_SHIFT, name="… lite0 beside lite2", blocks=_BOTH),
    _KIND,
    _GROUPS,
    _CAPTIONS,
    _LEANS,
    _BEFORE,
    SHIPPED,
    replace(SHIPPED, name="first file alone", few="further", few_weight=0.0),
    replace(SHIPPED, name="generated images alone", few="photographs", few_weight=0.0),
    replace(SHIPPED, name="photographs weigh half", few="photographs", few_weight=0.5),
    replace(SHIPPED, name="`prompt_exact` = false weighs .3", few="inexact", few_weight=0.3),
    replace(SHIPPED, name="texts of more than 150 words weigh .3", few="long", few_weight=0.3),
    replace(
        SHIPPED,
        name="instructions to edit a picture, templates and Chinese weigh .03",
        few="no prompt",
        few_weight=0.03,
    ),
    replace(SHIPPED, name="every text weighs 1, whatever its group", by_group=False),
    replace(SHIPPED, name="index map within sources only", index="source"),
    replace(
        SHIPPED,
        name="penalties halved",
        penalty=OUTPUT_PENALTY / 2,
        index_penalty=INDEX_PENALTY / 2,
    ),
    replace(
        SHIPPED,
        name="penalties doubled",
        penalty=OUTPUT_PENALTY * 2,
        index_penalty=INDEX_PENALTY * 2,
    ),
    *(
        replace(
            SHIPPED,
            name=f"without {name}",
            blocks=tuple((block, share) for block, share in _BOTH if block.read != read),
        )
        for name, read in (("ConSE", "conse"), ("the stages", "stages"))
    ),
    replace(SHIPPED, name="without lite0", blocks=_LARGE),
    replace(
        SHIPPED,
        name="lite2 at 260 px instead of 338",
        blocks=(*_trunk("lite2", 260, 1.0), _conse(260), *_trunk("lite0", 224, 0.5)),
    ),
    replace(
        SHIPPED,
        name="standard deviations of the stages too",
        blocks=(*_BOTH, (Block("lite2", 338, "std"), 1.0), (Block("lite0", 224, "std"), 0.5)),
    ),
    *(
        replace(
            SHIPPED,
            name=f"lite1 at {side_px} px as a third trunk",
            blocks=(*_BOTH, *_trunk("lite1", side_px, 0.7)),
        )
        for side_px in (240, 280)
    ),
]

FURTHER = [
    SHIPPED,
    replace(SHIPPED, name="kinds: an intercept each", kinds="intercepts"),
    replace(SHIPPED, name="kinds: an intercept and a low-rank correction each", kinds="low rank"),
    replace(
        SHIPPED,
        name="kinds: an intercept each, the kinds read from the true prompt",
        kinds="true intercepts",
    ),
    *(
        replace(SHIPPED, name=f"views: {name}", blocks=(*_LARGE, *_trunk("lite0", 224, 0.5, views)))
        for name, views in (
            ("lite0 sees the middle of the image alone, 1 pass", ("centre",)),
            ("lite0 sees the image and its middle, 2 passes", ("whole", "centre")),
            ("lite0 sees the image and its mirror image, 2 passes", ("whole", "mirrored")),
        )
    ),
    replace(SHIPPED, name="kinds: a head each", kinds="heads"),
]
"""Heads of kinds, and several views at rest.

Of lite0 alone: a second pass of lite2 would take the time of an image above .06 s.
"""

_EDIT = re.compile(
    r"(?i)\b(this|the (attached|uploaded|provided|given|reference|original|input)|my|your|uploaded"
    r"|attached|provided) (image|photo|picture|portrait|face|selfie|photograph|character|person"
    r"|product|logo)\b|\b(preserve|keep) (the|my|their|his|her)\b|\buploaded\b"
    r"|\breference image\b"
)
_BLANK = re.compile(r"\[[A-Za-z][^\]]{1,40}\]|\{[^}]{1,60}\}|<[a-z][^>]{1,40}>|\bINSERT\b")
_EAST_ASIAN = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]")
LONG_WORDS = 150


def _no_prompt(text: str) -> bool:
    """Tell whether a text edits another picture, has blanks to fill in, or is not in English."""
    return bool(_EDIT.search(text) or _BLANK.search(text) or len(_EAST_ASIAN.findall(text)) > 5)


def _by_text(rule: Callable[[str], bool]) -> Callable[[Study], NDArray[np.bool_]]:
    return lambda study: study.generated & [rule(row.texts[0]) for row in study.rows]


ROWS: dict[str, Callable[[Study], NDArray[np.bool_]]] = {
    "further": lambda study: ~study.first,
    "photographs": lambda study: ~study.generated,
    "inexact": lambda study: study.generated & ~study.exact,
    "long": _by_text(lambda text: len(text.split()) > LONG_WORDS),
    "no prompt": _by_text(_no_prompt),
}
"""The rows that an attempt trusts less, by rule."""

COLUMNS = (
    "five folds: first file, cosine",
    "R@10",
    "photographs, cosine",
    "R@10",
    "sources left out: first file, cosine",
    "R@10",
    "further files, cosine",
    "R@10",
)


def run_attempt(study: Study, attempt: Attempt) -> tuple[Prediction, Prediction]:
    """Return what is answered in five folds, and with sources left out."""
    return _predict(study, attempt, study.folds), _predict(study, attempt, study.source_folds)


def figures(study: Study, inside: Prediction, outside: Prediction) -> list[float]:
    """Return the figures of `COLUMNS`."""
    first, further = generated_sets(study)
    return [
        *brief_score(study, inside, first),
        *brief_score(study, inside, np.flatnonzero(~study.generated)),
        *brief_score(study, outside, first),
        *(brief_score(study, outside, further) if len(further) else ()),
    ]


def generated_sets(study: Study) -> tuple[Ids, Ids]:
    """Return the generated images of the first file, and of the further files."""
    return (
        np.flatnonzero(study.generated & study.first),
        np.flatnonzero(study.generated & ~study.first),
    )


def _predict(study: Study, attempt: Attempt, folds: list[Fold]) -> Prediction:
    output, index = np.zeros((2, len(study.rows), 384), np.float32)
    for train, test in folds:
        output[test], index[test] = _answer(study, attempt, train, test)
    return Prediction(output, unit_rows(index), study.constants.prompt_mean)


def _answer(study: Study, attempt: Attempt, train: Ids, test: Ids) -> tuple[Matrix, Matrix]:
    trust = np.ones(len(study.rows))
    if attempt.few:
        trust[ROWS[attempt.few](study)] = attempt.few_weight
    train = train[trust[train] > 0]
    examples = study.examples
    targets = examples.targets if attempt.captions else examples.prompts
    mine = replace(examples, targets=targets)[train]
    weights = trust[train] * (group_weights(study.groups[train]) if attempt.by_group else 1.0)
    centre, intercepts = _intercepts(study, attempt, mine, examples.kinds[test])
    systems = [(mine.targets - centre, attempt.penalty)]
    if attempt.index in ("source", "both"):
        systems.append((within_sources(mine), attempt.index_penalty))
    moved, *within = _solve(study, attempt, train, test, systems, weights)
    output = moved + intercepts
    if attempt.index == "output":
        return output, unit_rows(output) - study.constants.prompt_mean
    if attempt.index == "shift":
        return output, moved
    both = within[0] if attempt.index == "source" else (within[0] + moved) / 2
    return output, np.asarray(both, dtype=np.float32)


def _intercepts(
    study: Study, attempt: Attempt, mine: HeadExamples, asked_kinds: Ids
) -> tuple[Matrix, Matrix]:
    """Return what is subtracted from the targets, and what is added to the answers."""
    if attempt.centre == "all":
        mean = mine.targets.mean(axis=0)
        return mean, mean
    n_kinds = int(study.examples.kinds.max()) + 1
    means = np.zeros((n_kinds, mine.targets.shape[1]), np.float32)
    for kind in np.unique(mine.kinds):
        means[kind] = mine.targets[mine.kinds == kind].mean(axis=0)
    prompts = (1 - attempt.prompt_share) * source_mean(mine, kind=study.kind)
    prompts = prompts + attempt.prompt_share * study.constants.prompt_mean
    known = np.isin(asked_kinds, mine.kinds) & (asked_kinds != study.kind)
    return means[mine.kinds], np.where(known[:, None], means[asked_kinds], prompts)


def _solve(
    study: Study,
    attempt: Attempt,
    train: Ids,
    test: Ids,
    systems: list[tuple[Matrix, float]],
    weights: NDArray[np.float64],
) -> list[Matrix]:
    """Return the answers of weighted ridge regression for several targets and penalties."""
    from scipy.linalg import cho_factor, cho_solve

    weights = weights / weights.mean()
    answers = []
    if attempt.products:
        inputs = _products(study, attempt.blocks)
        if attempt.kinds:
            return answers_by_kind(study, attempt.kinds, inputs, (train, test), systems, weights)
        weighted = inputs[train] * weights[:, None].astype(np.float32)
        moments = inputs[train].T @ weighted
    else:
        inner = _gram(study, attempt.blocks)
    for targets, penalty in systems:
        if attempt.products:
            system = moments.copy()
            system[np.diag_indices_from(system)] += penalty * len(train)
            right, asked = weighted.T @ targets.astype(np.float32), inputs[test]
        else:
            system = inner[np.ix_(train, train)]
            system[np.diag_indices_from(system)] += penalty * len(train) / weights
            right, asked = targets.astype(np.float32), inner[np.ix_(test, train)]
        factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        solution = cho_solve(factor, right, check_finite=False)
        answers.append(np.asarray(asked @ solution, dtype=np.float32))
    return answers


@cache
def _products(study: Study, blocks: tuple[tuple[Block, float], ...]) -> Matrix:
    """Return (n, 2432): what `imprompt.encoders.lite_head.expanded` makes of these blocks."""
    from scipy.sparse.linalg import eigsh

    gram = _gram(study, blocks)
    values, vectors = eigsh(gram, k=BASIS_DIM, v0=np.ones(len(gram), np.float32))
    order = np.argsort(-values)
    components = vectors[:, order] * np.sqrt(np.maximum(values[order], 0))
    components = (components / np.sqrt(np.diag(gram))[:, None]).astype(np.float32)
    one, other = np.triu_indices(PAIRED_DIM)
    factor = np.where(one == other, 0.5, np.sqrt(0.5)).astype(np.float32)
    products = components[:, one] * components[:, other] * factor
    return np.hstack([components * np.sqrt(0.5, dtype=np.float32), products])


@lru_cache(maxsize=1)
def _gram(study: Study, blocks: tuple[tuple[Block, float], ...]) -> Matrix:
    """Return (n, n): the blocks' inner products, weighted by their shares."""
    total = np.zeros((len(study.rows), len(study.rows)), np.float32)
    for block, share in blocks:
        total += np.float32(share / sum(share for _, share in blocks)) * _block_gram(study, block)
    return total


def _seen(study: Study, block: Block) -> Seen:
    views = [study.seen(block.trunk, block.side_px, name) for name in block.views]
    if len(views) == 1:
        return views[0]
    return Seen(*(np.mean([getattr(one, part) for one in views], axis=0) for part in SEEN))


@cache
def _block_gram(study: Study, block: Block) -> Matrix:
    """Return the (n, n) inner products of a block's features, centred, of mean diagonal 1."""
    read, seen = block.read, _seen(study, block)
    if read == "log-probabilities":
        shifted = seen.logits - seen.logits.max(axis=1, keepdims=True)
        rows = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    elif read == "conse":
        rows = conse(seen.logits, study.constants.class_vectors)
    elif read == "std":
        squares = seen.squares[:, : seen.stages.shape[1]]
        rows = np.sqrt(np.maximum(squares - seen.stages**2, 0) + 1e-6)
    else:
        rows = {"pooled": seen.pooled, "sqrt": np.sqrt(seen.pooled), "stages": seen.stages}[read]
    centre, scale = block_scales(rows, (rows.shape[1],), (1.0,))
    scaled = (rows - centre) * scale
    return np.asarray(scaled @ scaled.T)
