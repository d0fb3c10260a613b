"""How the two maps of a head are fitted: what each pair is asked to predict, and how much it counts.

Every choice here was made by cross-validation, mostly over whole sources left out;
benchmarks/results/lite_head.md has the attempts and their figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imprompt.core.splits import similarity_groups
from imprompt.core.values import Ids, Vectors
from imprompt.encoders.lite_head import BASIS_DIM, BLOCK_DIMS, expanded
from imprompt.ensemble.ridge import Matrix, block_scales, principal_directions, ridge

BLOCK_SHARES = (1.0, 2.0, 0.5, 1.0, 0.7)
"""Variance of each block of `BLOCK_DIMS` as the regression sees it."""

OUTPUT_PENALTY = 0.001
INDEX_PENALTY = 0.0004
SOURCE_PRIOR_ROWS = 20.0
GROUP_EXPONENT = -0.5
PROMPT_MEAN_SHARE = 0.6
SETTINGS = {
    "block_shares": str(BLOCK_SHARES),
    "group_exponent": str(GROUP_EXPONENT),
    "index_penalty": str(INDEX_PENALTY),
    "output_penalty": str(OUTPUT_PENALTY),
    "prompt_mean_share": str(PROMPT_MEAN_SHARE),
    "source_prior_rows": str(SOURCE_PRIOR_ROWS),
}


@dataclass(frozen=True, slots=True)
class HeadExamples:
    """Pairs as the regression takes them; all arrays have n rows.

    `features` (n, p); `prompts` (n, 384) unit rows of each pair's prompt; `targets` (n, 384) the
    mean of the unit rows of all its texts, shorter than 1 where captions differ; `kinds` (generated
    images, photographs) and `sources` (repositories, collections) as integers.
    """

    features: Matrix
    prompts: Vectors
    targets: Matrix
    kinds: Ids
    sources: Ids

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Ids) -> HeadExamples:
        """The examples of the row numbers given."""
        return HeadExamples(
            self.features[rows],
            self.prompts[rows],
            self.targets[rows],
            self.kinds[rows],
            self.sources[rows],
        )


@dataclass(frozen=True, slots=True)
class FittedMaps:
    """The trained part of `imprompt.encoders.lite_head.LiteHead`, by the same names."""

    centre: Matrix
    scale: Matrix
    basis: Matrix
    output_weight: Matrix
    output_bias: Matrix
    index_weight: Matrix


def fit_maps(
    examples: HeadExamples, *, prompt_mean: Matrix, main_kind: int, smoothness: float = 1.0
) -> FittedMaps:
    """Fit both maps.

    The output map learns how a pair's text differs from the mean of its kind, so photographs teach
    what things are called and not how captions are worded; its intercept is the wording of prompts.
    The index map is the mean of that and of a map that learns how a text differs from its own
    source's mean, which found more prompts of sources that were left out.

    Args:
        examples: at least two.
        prompt_mean: (384,) mean of MiniLM's vectors of real prompts, of many more texts than the
            pairs have.
        main_kind: the kind that the output's intercept is taken from.
        smoothness: both penalties are multiplied by it.
    """
    centre, scale = block_scales(examples.features, BLOCK_DIMS, BLOCK_SHARES)
    scaled = (examples.features - centre) * scale
    basis = principal_directions(scaled, BASIS_DIM)
    inputs = expanded(scaled, basis)
    weights = group_weights(examples.prompts)
    by_kind = examples.targets - class_means(examples.targets, examples.kinds)[examples.kinds]
    output = ridge(inputs, by_kind, penalty=OUTPUT_PENALTY * smoothness, row_weights=weights)
    by_source = ridge(
        inputs, within_sources(examples), penalty=INDEX_PENALTY * smoothness, row_weights=weights
    )
    bias = (1 - PROMPT_MEAN_SHARE) * source_mean(
        examples, kind=main_kind
    ) + PROMPT_MEAN_SHARE * prompt_mean
    return FittedMaps(
        centre=centre,
        scale=scale,
        basis=basis,
        output_weight=output,
        output_bias=np.asarray(bias, dtype=np.float32),
        index_weight=np.asarray((output + by_source) / 2, dtype=np.float32),
    )


def group_weights(prompts: Vectors) -> NDArray[np.float64]:
    """(n,) weights: a group of g near-duplicate texts counts like √g texts of its own, not like g."""
    groups = similarity_groups(prompts)
    return (
        np.asarray(np.bincount(groups, minlength=len(groups))[groups], dtype=np.float64)
        ** GROUP_EXPONENT
    )


def class_means(rows: Matrix, classes: Ids) -> Matrix:
    """(classes, d) mean of the rows of each class; classes are 0, 1, … without a gap."""
    sums = np.zeros((int(classes.max()) + 1, rows.shape[1]))
    np.add.at(sums, classes, rows)
    return np.asarray(sums / np.bincount(classes)[:, None], dtype=np.float32)


def within_sources(examples: HeadExamples) -> Matrix:
    """(n, d) targets minus their source's mean, which leans to the mean of their kind the fewer rows the source has.

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
    """(d,) mean prompt of a kind, each source counting with the square root of its rows, so that no large one rules."""
    mine = examples[np.flatnonzero(examples.kinds == kind)]
    _, sources, rows = np.unique(mine.sources, return_inverse=True, return_counts=True)
    return np.asarray(
        np.average(class_means(mine.prompts, sources), axis=0, weights=np.sqrt(rows)),
        dtype=np.float32,
    )


def integer_codes(names: Sequence[str]) -> Ids:
    """(n,) the rank of each name among the different names."""
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)
