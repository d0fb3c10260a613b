"""The search alone: where the true prompt would stand if it were in the corpus, and whether its score would give it away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.metrics import row_cosines
from imprompt.core.values import Vectors
from imprompt.evaluation.calibration import auroc
from imprompt.evaluation.pair_set import PairSet
from imprompt.evaluation.report import Planted, Recall, estimate

if TYPE_CHECKING:
    from imprompt.evaluation.member_cache import Look

RECALL_AT = (1, 5, 10, 100)
_MEAN_OF = 10


@dataclass(frozen=True, slots=True)
class Retrieved:
    """`scores` (n, k) of the nearest prompts, falling, the true ones not among them; `truth` (n,) the score of the true prompt.

    `true_rows` (n, dim) are the true prompts in the index space.
    """

    scores: NDArray[np.float32]
    truth: NDArray[np.float32]
    true_rows: Vectors

    @staticmethod
    def empty(true_rows: Vectors, *, k: int) -> Retrieved:
        """To be filled in with `put`."""
        rows = len(true_rows)
        return Retrieved(np.zeros((rows, k), np.float32), np.zeros(rows, np.float32), true_rows)

    def put(self, look: Look) -> None:
        """Fill in the rows of one look."""
        self.scores[look.rows] = look.around.hits.scores
        self.truth[look.rows] = row_cosines(look.around.pictures, self.true_rows[look.rows])

    def recall(self, pairs: PairSet) -> tuple[Recall, ...]:
        """recall@k on the rows of the main kind, the true prompt of each picture planted alone into the corpus."""
        rows = np.flatnonzero(pairs.fitted_on)
        depths = [k for k in RECALL_AT if k <= self.scores.shape[1]]
        found = {k: (self.truth > self.scores[:, k - 1]).astype(np.float64) for k in depths}
        return tuple(
            Recall(k, estimate(values, pairs, rows, label="recall")) for k, values in found.items()
        )

    def planted(self, pairs: PairSet) -> tuple[Planted, ...]:
        """How well retrieval scores tell the corpus with the true prompt from the one without, on the rows of the main kind."""
        rows = np.flatnonzero(pairs.fitted_on)
        absent = self.scores[rows]
        present = -np.sort(-np.column_stack([absent, self.truth[rows]]), axis=1)[:, :-1]
        which = np.repeat([False, True], len(rows))
        both = np.concatenate([absent, present])
        depth = min(_MEAN_OF, both.shape[1])
        lead = both[:, 0] - both[:, 1:depth].mean(axis=1) if depth > 1 else both[:, 0]
        signs = {"score of the nearest": both[:, 0], "lead of the nearest over the next nine": lead}
        return tuple(Planted(sign, auroc(values, which)) for sign, values in signs.items())
