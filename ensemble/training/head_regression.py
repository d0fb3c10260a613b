"""The regression behind a head: the targets and weights of pairs, and the two maps fitted to them.

Every choice here was made by cross-validation, mostly over whole sources left out;
benchmarks/results/lite_head.md lists the alternatives and their figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from imprompt.core.splits import similarity_groups
from imprompt.core.values import Ids, Vectors
from imprompt.encoders.lite_head import BASIS_DIM, BLOCK_DIMS, expanded
from imprompt.ensemble.ridge import Matrix, block_scales, principal_directions, ridge
from imprompt.ensemble.training.label_regression import LABEL_PENALTY, fit_labels, tags_to_keep
from imprompt.ensemble.training.tag_words import tag_words

BLOCK_SHARES = (1.0, 2.0, 0.5, 1.0, 0.7)
"""The variance of each block of `BLOCK_DIMS` in the regression."""

OUTPUT_PENALTY = 0.001
INDEX_PENALTY = 0.0004
SOURCE_PRIOR_ROWS = 20.0
GROUP_EXPONENT = -0.5
PROMPT_MEAN_SHARE = 0.6
SETTINGS = {
    "block_shares": str(BLOCK_SHARES),
    "group_exponent": str(GROUP_EXPONENT),
    "index_penalty": str(INDEX_PENALTY),
    "label_penalty": str(LABEL_PENALTY),
    "output_penalty": str(OUTPUT_PENALTY),
    "prompt_mean_share": str(PROMPT_MEAN_SHARE),
    "source_prior_rows": str(SOURCE_PRIOR_ROWS),
}


@dataclass(frozen=True, slots=True)
class HeadExamples:
    """n pairs as arrays of n rows.

    `features` (n, p); `prompts` (n, 384) unit rows of each pair's prompt; `targets` (n, 384) the
    mean of the unit rows of all its texts, shorter than 1 where captions differ; `kinds` (generated
    images, photographs) and `sources` (repositories, collections) as integers; `tags` (n, t) bool:
    which of `tag_words` a pair's texts hold.
    """

    features: Matrix
    prompts: Vectors
    targets: Matrix
    kinds: Ids
    sources: Ids
    tags: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Ids) -> HeadExamples:
        """Return the examples of these row numbers."""
        return HeadExamples(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class FittedMaps:
    """The trained part of `imprompt.encoders.lite_head.LiteHead`, by the same names."""

    centre: Matrix
    scale: Matrix
    basis: Matrix
    output_weight: Matrix
    output_bias: Matrix
    caption_bias: Matrix
    index_weight: Matrix
    label_weight: Matrix
    label_slope: Matrix
    label_intercept: Matrix
    tags: tuple[str, ...]


def fit_maps(
    examples: HeadExamples, *, prompt_mean: Matrix, main_kind: int, smoothness: float = 1.0
) -> FittedMaps:
    """Return the output map, the index map and the labels, fitted to the examples.

    The output map learns how a pair's text differs from the mean of its kind, so photographs teach
    what things are called and not how captions are worded. It has two intercepts: the wording of
    prompts, and that of the other kinds, such as captions of photographs. The index map is the mean
    of that and of a map that learns how a text differs from the mean of its source, which found
    more prompts of sources that were left out.

    Args:
        examples: at least two.
        prompt_mean: (384,) mean of MiniLM's vectors of real prompts, of many more texts than the
            pairs have.
        main_kind: the kind whose mean prompt enters the output's intercept.
        smoothness: a factor of both penalties.
    """
    centre, scale = block_scales(examples.features, BLOCK_DIMS, BLOCK_SHARES)
    scaled = (examples.features - centre) * scale
    basis = principal_directions(scaled, BASIS_DIM)
    inputs = expanded(scaled, basis)
    groups = similarity_groups(examples.prompts)
    weights = group_weights(groups)
    by_kind = examples.targets - class_means(examples.targets, examples.kinds)[examples.kinds]
    output = ridge(inputs, by_kind, penalty=OUTPUT_PENALTY * smoothness, row_weights=weights)
    by_source = ridge(
        inputs, within_sources(examples), penalty=INDEX_PENALTY * smoothness, row_weights=weights
    )
    kind_mean = source_mean(examples, kind=main_kind)
    bias = (1 - PROMPT_MEAN_SHARE) * kind_mean + PROMPT_MEAN_SHARE * prompt_mean
    others = examples.kinds != main_kind
    labels = fit_labels(
        inputs, np.column_stack([others, examples.tags]), groups=groups, row_weights=weights
    )
    kept = tags_to_keep(examples.tags, labels.precision[1:])
    chosen = np.append(0, 1 + kept)
    return FittedMaps(
        centre=centre,
        scale=scale,
        basis=basis,
        output_weight=output,
        output_bias=np.asarray(bias, dtype=np.float32),
        caption_bias=_caption_bias(examples.targets, others, bias),
        index_weight=np.asarray((output + by_source) / 2, dtype=np.float32),
        label_weight=labels.weight[:, chosen],
        label_slope=labels.slope[chosen],
        label_intercept=labels.intercept[chosen],
        tags=tuple(tag_words()[tag] for tag in kept),
    )


def _caption_bias(targets: Vectors, others: NDArray[np.bool_], bias: Matrix) -> Matrix:
    """Return the mean text of the kinds that are not the main one, or `bias` without any."""
    mean = targets[others].mean(axis=0) if others.any() else bias
    return np.asarray(mean, dtype=np.float32)


def group_weights(groups: Ids) -> NDArray[np.float64]:
    """Return (n,) weights by which g near-duplicate texts count like √g texts, not like g."""
    sizes = np.asarray(np.bincount(groups, minlength=len(groups))[groups], dtype=np.float64)
    return sizes**GROUP_EXPONENT


def class_means(rows: Matrix, classes: Ids) -> Matrix:
    """Return the (classes, d) mean rows of classes 0, 1, …, none of which is empty."""
    sums = np.zeros((int(classes.max()) + 1, rows.shape[1]))
    np.add.at(sums, classes, rows)
    return np.asarray(sums / np.bincount(classes)[:, None], dtype=np.float32)


def within_sources(examples: HeadExamples) -> Matrix:
    """Return (n, d) targets minus their source's mean, shrunk to the mean of their kind.

    A source of n rows counts n / (n + 20), the shrinkage of a random intercept (Searle et al. 1992,
    section 3.4).
    """
    kind_means = class_means(examples.targets, examples.kinds)[examples.kinds]
    _, cells = np.unique(np.stack([examples.sources, examples.kinds]), axis=1, return_inverse=True)
    rows = np.bincount(cells)[cells][:, None]
    trust = rows / (rows + SOURCE_PRIOR_ROWS)
    expected = trust * class_means(examples.targets, cells)[cells] + (1 - trust) * kind_means
    return np.asarray(examples.targets - expected, dtype=np.float32)


def source_mean(examples: HeadExamples, *, kind: int) -> Matrix:
    """Return the (d,) mean prompt of a kind, each source weighted by the square root of its rows.

    The root keeps a large source from dominating.
    """
    chosen = examples[np.flatnonzero(examples.kinds == kind)]
    _, sources, rows = np.unique(chosen.sources, return_inverse=True, return_counts=True)
    mean = np.average(class_means(chosen.prompts, sources), axis=0, weights=np.sqrt(rows))
    return np.asarray(mean, dtype=np.float32)


def integer_codes(names: Sequence[str]) -> Ids:
    """Return (n,) the rank of each name among the distinct names."""
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)
