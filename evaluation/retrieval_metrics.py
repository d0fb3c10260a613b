"""Measure the search alone: the rank of the true prompt if the corpus held it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.metrics import row_cosines
from imprompt.core.values import Ids, Vectors
from imprompt.evaluation.calibration import auroc
from imprompt.evaluation.pair_set import PairSet
from imprompt.evaluation.report import Planted, Recall, estimate

if TYPE_CHECKING:
    from imprompt.evaluation.member_cache import BlockOutputs

RECALL_AT = (1, 5, 10, 100)
_LEAD_OVER = 10


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Scores in the index space, of the nearest prompts and of the true one.

    `scores` (n, k): of the nearest prompts, descending, true texts left out. `nearest` (n,): the
    row ids of the first of them. `truth` (n,): of the true prompt. `true_vectors` (n, dim): the
    true prompts in the index space.
    """

    scores: NDArray[np.float32]
    nearest: Ids
    truth: NDArray[np.float32]
    true_vectors: Vectors

    @staticmethod
    def empty(true_vectors: Vectors, *, k: int) -> RetrievalScores:
        """Return scores of zero, to be filled by `put`."""
        n = len(true_vectors)
        return RetrievalScores(
            np.zeros((n, k), np.float32),
            np.zeros(n, np.int64),
            np.zeros(n, np.float32),
            true_vectors,
        )

    def put(self, outputs: BlockOutputs) -> None:
        """Fill in the rows of a block."""
        rows, surroundings = outputs.rows, outputs.surroundings
        self.scores[rows] = surroundings.hits.scores
        self.nearest[rows] = surroundings.hits.ids[:, 0]
        self.truth[rows] = row_cosines(surroundings.pictures, self.true_vectors[rows])

    def recall(self, pairs: PairSet) -> tuple[Recall, ...]:
        """Return recall@k on the main kind, each true prompt planted alone in the corpus."""
        figures = []
        for k in RECALL_AT:
            if k <= self.scores.shape[1]:
                is_found = (self.truth > self.scores[:, k - 1]).astype(np.float64)
                share = estimate(is_found, pairs, pairs.main_rows, label="recall")
                figures.append(Recall(k, share))
        return tuple(figures)

    def planted(self, pairs: PairSet) -> tuple[Planted, ...]:
        """Return the AUROC of telling whether the true prompt was planted, on the main kind."""
        absent = self.scores[pairs.main_rows]
        truth = self.truth[pairs.main_rows]
        # The true prompt takes its place among the nearest k, and the last of them drops out.
        present = -np.sort(-np.column_stack([absent, truth]), axis=1)[:, :-1]
        both = np.concatenate([absent, present])
        is_present = np.repeat([False, True], len(absent))
        depth = min(_LEAD_OVER, both.shape[1])
        lead = both[:, 0] - both[:, 1:depth].mean(axis=1) if depth > 1 else both[:, 0]
        signs = {"score of the nearest": both[:, 0], "lead of the nearest over the next nine": lead}
        return tuple(Planted(sign, auroc(values, is_present)) for sign, values in signs.items())
