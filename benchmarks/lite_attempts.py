"""The attempts on the head of `lite`: sets of choices, all fitted by kernel ridge regression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.lite_study import Fold, Prediction, Study, hits
from imprompt.core.values import Ids, unit_rows
from imprompt.encoders.lite_head import BASIS_DIM, PAIRED_DIM, conse
from imprompt.ensemble.ridge import Matrix, block_scales
from imprompt.ensemble.training.head_fit import (
    HeadExamples,
    class_means,
    source_mean,
    within_sources,
)

Block = tuple[str, int, str, str]
"""Trunk, side in pixels, view, and readout: pooled, sqrt, stages, log-probabilities or conse."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A set of choices; the defaults are those of the prototype, a plain ridge.

    `centre`: subtracted from the output map's targets ("all" the mean, "kind" the mean of the
    kind). `index`: the map of the index space ("output" the same, "shift" the same minus the
    intercept, "source" one within sources, "both" the mean of the two).
    """

    name: str
    blocks: tuple[tuple[Block, float], ...]
    centre: str = "all"
    index: str = "output"
    captions: bool = False
    prompt_share: float = 0.0
    group_exponent: float = 0.0
    photo_weight: float = 1.0
    penalty: float = 0.002
    index_penalty: float = 0.0008
    kernel: str = "linear"
    text_space: str = "mean removed"
    after: str = ""


def _block(trunk: str, side_px: int, read: str, view: str = "whole") -> Block:
    return trunk, side_px, view, read


_OLD = tuple(
    (_block("lite2", 260, read), share)
    for read, share in (("pooled", 1.28), ("log-probabilities", 1.0), ("conse", 0.384))
)
_SQRT = ((_block("lite2", 260, "sqrt"), 1.0), (_block("lite2", 260, "conse"), 0.7))
_STAGES = (*_SQRT, (_block("lite2", 260, "stages"), 2.0))
_LARGE = (
    (_block("lite2", 338, "sqrt"), 1.0),
    (_block("lite2", 338, "stages"), 2.0),
    (_block("lite2", 338, "conse"), 0.7),
)
_SMALL = ((_block("lite0", 224, "sqrt"), 0.5), (_block("lite0", 224, "stages"), 1.0))
_BOTH = (*_LARGE, *_SMALL)


def _seen_again(view: str) -> tuple[tuple[Block, float], ...]:
    return ((_block("lite2", 260, "sqrt", view), 0.5), (_block("lite2", 260, "stages", view), 1.0))


_WAY = [
    Attempt("plain ridge", _OLD),
    Attempt("… index map without the intercept", _OLD, index="shift"),
    Attempt("… square roots, no log-probabilities", _SQRT, index="shift"),
    Attempt("… ends of the stages of lite2", _STAGES, index="shift"),
    Attempt("… 338 px instead of 260", _LARGE, index="shift"),
    Attempt("… lite0 beside lite2", _BOTH, index="shift"),
    Attempt("… targets centred by kind", _BOTH, index="shift", centre="kind"),
    Attempt(
        "… groups of g texts weigh √g", _BOTH, index="shift", centre="kind", group_exponent=-0.5
    ),
    Attempt(
        "… all captions of a photograph",
        _BOTH,
        index="shift",
        centre="kind",
        group_exponent=-0.5,
        captions=True,
    ),
]
_BEFORE = replace(
    _WAY[-1], name="… index map averaged with one within sources", index="both", prompt_share=0.6
)
SHIPPED = replace(
    _BEFORE,
    name="**shipped**: … products of leading components",
    kernel="products",
    penalty=0.001,
    index_penalty=0.0004,
)
ATTEMPTS = [
    *_WAY,
    replace(_WAY[-1], name="… intercept leans to the mean of many prompts", prompt_share=0.6),
    _BEFORE,
    SHIPPED,
    replace(SHIPPED, name="index map within sources only", index="source"),
    replace(SHIPPED, name="penalties halved", penalty=0.0005, index_penalty=0.0002),
    replace(SHIPPED, name="penalties doubled", penalty=0.002, index_penalty=0.0008),
    replace(SHIPPED, name="without lite0", blocks=_LARGE),
    replace(
        SHIPPED, name="without ConSE", blocks=tuple(one for one in _BOTH if one[0][3] != "conse")
    ),
    replace(
        SHIPPED,
        name="last layers and ConSE only",
        blocks=tuple(one for one in _BOTH if one[0][3] != "stages"),
    ),
    replace(
        SHIPPED, name="stages only", blocks=tuple(one for one in _BOTH if one[0][3] == "stages")
    ),
    replace(
        SHIPPED,
        name="log-probabilities added",
        blocks=(*_BOTH, (_block("lite2", 338, "log-probabilities"), 0.7)),
    ),
    replace(SHIPPED, name="lite2 at 260 px too", blocks=(*_BOTH, *_seen_again("whole"))),
    replace(SHIPPED, name="mirrored view too", blocks=(*_BOTH, *_seen_again("mirrored"))),
    replace(SHIPPED, name="centre view too", blocks=(*_BOTH, *_seen_again("centre"))),
    replace(SHIPPED, name="RBF kernel", kernel="rbf"),
    replace(SHIPPED, name="Laplace kernel", kernel="laplace"),
    replace(SHIPPED, name="groups of g texts weigh 1", group_exponent=-1.0),
    replace(SHIPPED, name="photographs weigh half", photo_weight=0.5),
    replace(SHIPPED, name="photographs weigh double", photo_weight=2.0),
    replace(SHIPPED, name="generated images only", photo_weight=1e-4),
    replace(SHIPPED, name="blended with 20 nearest pairs", after="knn"),
    replace(SHIPPED, name="targets of rank 128", after="rank"),
    replace(SHIPPED, name="index: mean kept on both sides", text_space="plain"),
    replace(SHIPPED, name="index: text space half whitened", text_space="whitened"),
    replace(SHIPPED, name="index: contrastive fine-tuning (InfoNCE)", after="contrastive"),
]


def run_attempt(study: Study, attempt: Attempt) -> list[float]:
    """Return cosine (by folds, by sources), R@1, R@10 (same), and photographs' cosine and R@10."""
    generated, photographs = np.flatnonzero(study.generated), np.flatnonzero(~study.generated)
    inside = _predict(study, attempt, study.folds)
    outside = _predict(study, attempt, study.source_folds)

    def cosine(prediction: Prediction, rows: Ids) -> float:
        return float(
            np.einsum(
                "nd,nd->n", unit_rows(prediction.output[rows]), study.examples.prompts[rows]
            ).mean()
        )

    def recall(prediction: Prediction, rows: Ids, k: int) -> float:
        found, _ = hits(study, prediction, rows, k)
        return float(found.mean())

    return [
        cosine(inside, generated),
        cosine(outside, generated),
        recall(inside, generated, 1),
        recall(inside, generated, 10),
        recall(outside, generated, 10),
        cosine(inside, photographs),
        recall(inside, photographs, 10),
    ]


def _predict(study: Study, attempt: Attempt, folds: list[Fold]) -> Prediction:
    gram = _kernel(study, attempt)
    output, index = np.zeros((2, len(study.rows), 384), np.float32)
    for train, test in folds:
        output[test], index[test] = _answer(study, attempt, gram, train, test)
    mean = study.constants.prompt_mean
    if attempt.text_space == "plain":
        mean = np.zeros_like(mean)
    if (
        attempt.text_space == "whitened"
    ):  # a score of whitened texts is a score of texts with a twice whitened question
        index = index @ _whitening(study)
    return Prediction(output, unit_rows(index), mean)


def _answer(
    study: Study, attempt: Attempt, gram: Matrix, train: Ids, test: Ids
) -> tuple[Matrix, Matrix]:
    examples = study.examples
    targets = examples.targets if attempt.captions else examples.prompts
    mine = HeadExamples(
        examples.features[train],
        examples.prompts[train],
        targets[train],
        examples.kinds[train],
        examples.sources[train],
    )
    sizes = np.bincount(study.groups, minlength=len(gram))[study.groups[train]]
    weights = sizes**attempt.group_exponent * np.where(
        study.generated[train], 1.0, attempt.photo_weight
    )
    if attempt.centre == "all":
        intercepts = np.repeat(mine.targets.mean(axis=0)[None], len(test), axis=0)
        wanted = mine.targets - mine.targets.mean(axis=0)
    else:
        means = class_means(mine.targets, mine.kinds)
        kind = int(examples.kinds[study.generated][0])
        prompts = (1 - attempt.prompt_share) * source_mean(
            mine, kind=kind
        ) + attempt.prompt_share * study.constants.prompt_mean
        wanted = mine.targets - means[mine.kinds]
        intercepts = np.where(
            (examples.kinds[test] == kind)[:, None], prompts, means[examples.kinds[test]]
        )
    if attempt.after == "rank":
        _, _, directions = np.linalg.svd(wanted, full_matrices=False)
        wanted = wanted @ directions[:128].T @ directions[:128]
    moved = _solve(gram, train, test, wanted, attempt.penalty, weights)
    if attempt.after == "knn":
        moved = 0.75 * moved + 0.25 * _neighbours(gram, train, test, wanted)
    index = _index(attempt, gram, train, test, moved, moved + intercepts, mine, weights, study)
    return moved + intercepts, index


def _index(
    attempt: Attempt,
    gram: Matrix,
    train: Ids,
    test: Ids,
    moved: Matrix,
    output: Matrix,
    mine: HeadExamples,
    weights: Matrix,
    study: Study,
) -> Matrix:
    if attempt.index == "output":
        return unit_rows(output) - study.constants.prompt_mean
    if attempt.index == "shift":
        return moved
    within = _solve(gram, train, test, within_sources(mine), attempt.index_penalty, weights)
    both = within if attempt.index == "source" else (within + moved) / 2
    if attempt.after == "contrastive":
        return _contrastive(study, attempt, gram, train, test, mine, weights)
    return np.asarray(both, dtype=np.float32)


def _solve(
    gram: Matrix,
    train: Ids,
    test: Ids,
    targets: Matrix,
    penalty: float,
    weights: NDArray[np.floating],
) -> Matrix:
    from scipy.linalg import cho_factor, cho_solve

    inner = gram[np.ix_(train, train)]
    inner[np.diag_indices_from(inner)] += (penalty * len(train) * weights.mean() / weights).astype(
        np.float32
    )
    factor = cho_factor(inner, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(
        gram[np.ix_(test, train)]
        @ cho_solve(factor, targets.astype(np.float32), check_finite=False)
    )


def _neighbours(gram: Matrix, train: Ids, test: Ids, wanted: Matrix) -> Matrix:
    lengths = np.sqrt(np.diag(gram))
    cosines = gram[np.ix_(test, train)] / lengths[test][:, None] / lengths[train]
    nearest = np.argpartition(-cosines, 20, axis=1)[:, :20]
    return np.asarray(wanted[nearest].mean(axis=1), dtype=np.float32)


def _contrastive(
    study: Study,
    attempt: Attempt,
    gram: Matrix,
    train: Ids,
    test: Ids,
    mine: HeadExamples,
    weights: Matrix,
) -> Matrix:
    """Tune the ridge map by a symmetric InfoNCE loss on 384 principal components.

    Texts of one group are not negatives of each other.
    """
    import torch

    values, vectors = np.linalg.eigh(gram[np.ix_(train, train)])
    basis = vectors[:, -384:] / np.sqrt(values[-384:])
    inputs, asked = gram[np.ix_(train, train)] @ basis, gram[np.ix_(test, train)] @ basis
    wanted = (
        within_sources(mine) + mine.targets - class_means(mine.targets, mine.kinds)[mine.kinds]
    ) / 2
    system = inputs.T @ (
        inputs * weights[:, None]
    ) + attempt.index_penalty * weights.sum() * np.eye(inputs.shape[1])
    start = np.linalg.solve(system, inputs.T @ (wanted * weights[:, None]))
    size = np.abs(inputs @ start).mean() * 16
    weight = torch.tensor(start / size, dtype=torch.float32, requires_grad=True)
    pictures = torch.tensor(inputs, dtype=torch.float32)
    texts = torch.nn.functional.normalize(
        torch.tensor(mine.prompts - study.constants.prompt_mean, dtype=torch.float32)
    )
    groups = torch.tensor(study.groups[train])
    optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        for batch in torch.split(torch.randperm(len(train), generator=generator), 512):
            scores = torch.nn.functional.normalize(pictures[batch] @ weight) @ texts[batch].T / 0.1
            same = (groups[batch][:, None] == groups[batch]) & ~torch.eye(
                len(batch), dtype=torch.bool
            )
            scores = scores.masked_fill(same, -1e4)
            truth = torch.arange(len(batch))
            loss = torch.nn.functional.cross_entropy(
                scores, truth
            ) + torch.nn.functional.cross_entropy(scores.T, truth)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return np.asarray(asked @ weight.detach().numpy(), dtype=np.float32)


def _whitening(study: Study) -> Matrix:
    texts = unit_rows(study.examples.prompts - study.constants.prompt_mean)
    values, vectors = np.linalg.eigh(texts.T @ texts / len(texts))
    return np.asarray(vectors * (values + 1e-3 * values[-1]) ** -0.5 @ vectors.T, dtype=np.float32)


def _kernel(study: Study, attempt: Attempt) -> Matrix:
    gram = sum(
        (share * _gram(study, block) for block, share in attempt.blocks), start=np.float32(0)
    )
    gram = np.asarray(gram / sum(share for _, share in attempt.blocks), dtype=np.float32)
    if attempt.kernel == "linear":
        return gram
    if attempt.kernel == "products":
        return _with_products(gram)
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares - 2 * gram, 0)
    if attempt.kernel == "rbf":
        return np.asarray(np.exp(-distances / distances.mean()), dtype=np.float32)
    distances = np.sqrt(distances)
    return np.asarray(np.exp(-distances / (2 * distances.mean())), dtype=np.float32)


def _with_products(gram: Matrix) -> Matrix:
    """Return the kernel of the feature map `imprompt.encoders.lite_head.expanded`."""
    values, vectors = np.linalg.eigh(gram)
    components = vectors[:, : -BASIS_DIM - 1 : -1] * np.sqrt(
        np.maximum(values[: -BASIS_DIM - 1 : -1], 0)
    )
    components = components / np.sqrt(np.diag(gram))[:, None]
    leading = components[:, :PAIRED_DIM]
    return np.asarray(
        components @ components.T / 2 + (leading @ leading.T) ** 2 / 4, dtype=np.float32
    )


@cache
def _gram(study: Study, block: Block) -> Matrix:
    """Return the (n, n) inner products of a block's features, centred, of mean diagonal 1."""
    trunk, side_px, view, read = block
    seen = study.seen(trunk, side_px, view)
    if read == "log-probabilities":
        shifted = seen.logits - seen.logits.max(axis=1, keepdims=True)
        rows = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    elif read == "conse":
        rows = conse(seen.logits, study.constants.class_vectors)
    else:
        rows = {"pooled": seen.pooled, "sqrt": np.sqrt(seen.pooled), "stages": seen.stages}[read]
    centre, scale = block_scales(rows, (rows.shape[1],), (1.0,))
    scaled = (rows - centre) * scale
    return np.asarray(scaled @ scaled.T)
