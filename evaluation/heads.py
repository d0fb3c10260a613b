"""The head of `lite`, trained again without the rows that it is asked about."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from imprompt.core.errors import CorpusError
from imprompt.core.protocols import Progress
from imprompt.core.values import Ids
from imprompt.encoders.lite_head import LiteHead
from imprompt.ensemble.training.head_regression import HeadExamples, fit_maps
from imprompt.ensemble.training.head_training import MIN_PAIRS, make_head
from imprompt.evaluation.pair_set import PairSet

Heads = dict[frozenset[int], LiteHead]
"""By the folds whose groups the head has not seen."""


def refit_heads(
    pairs: PairSet,
    examples: HeadExamples,
    *,
    main_kind: int,
    constants: LiteHead,
    progress: Progress,
) -> Heads:
    """A head without each fold, and without each two of them.

    Weights that are used on fold f are fitted on the other folds; there every row of fold g is
    answered by the head without f and g, so that not even by way of the weights anything of f is
    known beforehand.

    Args:
        examples: as many as pairs.
        main_kind: as `imprompt.ensemble.training.head_regression.fit_maps` takes it.
        constants: the head whose constants all share.

    Raises:
        CorpusError: too few pairs are left to train on.
    """
    folds = range(pairs.n_folds)
    wanted = [frozenset({fold}) for fold in folds] + [
        frozenset(two) for two in combinations(folds, 2)
    ]
    fewest = min(len(pairs.without(left_out)) for left_out in wanted)
    if fewest < MIN_PAIRS:
        raise CorpusError(
            f"Without two folds {fewest} pairs are left; a head needs at least {MIN_PAIRS}.",
            hint="Give more pairs, or take the head as it is with --unseen, if it was not trained on these pairs.",
        )
    heads: Heads = {}
    with progress.start("Training heads without each fold", len(wanted)) as task:
        for left_out in wanted:
            heads[left_out] = _fit_head(
                examples, pairs.without(left_out), main_kind=main_kind, constants=constants
            )
            task.advance(1)
    return heads


def _fit_head(
    examples: HeadExamples, rows: Ids, *, main_kind: int, constants: LiteHead
) -> LiteHead:
    part = examples[rows]
    present, kinds = np.unique(
        part.kinds, return_inverse=True
    )  # a kind may be missing from these rows
    part = HeadExamples(
        part.features, part.prompts, part.targets, kinds.astype(np.int64), part.sources
    )
    main = (
        int(np.flatnonzero(present == main_kind)[0])
        if main_kind in present
        else int(np.bincount(kinds).argmax())
    )
    fitted = fit_maps(part, prompt_mean=constants.prompt_mean, main_kind=main)
    return make_head(fitted, constants=constants, training={})
