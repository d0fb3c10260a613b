"""The pairs that answers are measured on: their true vectors, what must stay together in a split, and how they are grouped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imprompt.core.errors import CorpusError, ImageRejected
from imprompt.core.protocols import Progress, TextEncoder
from imprompt.core.splits import group_folds, similarity_groups
from imprompt.core.values import Ids, Vectors
from imprompt.ensemble.training.head_training import main_kind
from imprompt.ensemble.training.pairs import Pair, read_pairs
from imprompt.images.decode import open_image

SEED = 0
LENGTHS = ((1, 10), (11, 20), (21, 40), (41, 10_000))
"""Bounds of the slices by length of the prompt, in words."""


@dataclass(frozen=True, slots=True)
class PairSet:
    """n pairs whose images can be read.

    `truth` (n, 384) unit rows: MiniLM of each pair's prompt. `groups` (n,): near-duplicate prompts
    share one. `folds` (n,): which fold tests a row; no group stands in two. `fitted_on` (n,) bool:
    the rows of the main kind, those that weights are fitted on. `failed` lists images that cannot
    be read; they are no rows.
    """

    rows: tuple[Pair, ...]
    truth: Vectors
    groups: Ids
    folds: Ids
    fitted_on: np.typing.NDArray[np.bool_]
    failed: tuple[tuple[Path, ImageRejected], ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_folds(self) -> int:
        return int(self.folds.max()) + 1

    def of_fold(self, fold: int) -> Ids:
        """The rows that this fold tests."""
        return np.flatnonzero(self.folds == fold)

    def without(self, folds: frozenset[int]) -> Ids:
        """The rows that may be learned from when these folds are tested."""
        return np.flatnonzero(~np.isin(self.folds, list(folds)))

    def slices(self) -> dict[tuple[str, str], Ids]:
        """(by what, which) to rows: all, by kind and generator where there are several, and by length those of the main kind."""
        words = np.array([len(row.texts[0].split()) for row in self.rows])
        found: dict[tuple[str, str], Ids] = {("all", "all"): np.arange(len(self))}
        for by, names in (
            ("kind", [row.kind for row in self.rows]),
            ("generator", [row.generator for row in self.rows]),
        ):
            labels = np.array(names, dtype=str)
            if len(set(names)) > 1:
                found |= {
                    (by, name or "not stated"): np.flatnonzero(labels == name)
                    for name in sorted(set(names))
                }
        for low, high in LENGTHS:
            rows = np.flatnonzero((words >= low) & (words <= high) & self.fitted_on)
            if len(rows):
                found[
                    "length",
                    f"{low} to {high} words" if high < LENGTHS[-1][1] else f"{low} words and more",
                ] = rows
        return found


def load_pair_set(path: Path, *, minilm: TextEncoder, n_folds: int, progress: Progress) -> PairSet:
    """The pairs of a file, split into folds by groups of near-duplicate prompts.

    Raises:
        CorpusError: the file cannot be read, names an image that is not there, no image can be
            read, or there are fewer groups than folds.
    """
    rows, failed = _readable(read_pairs(path), progress=progress)
    if not rows:
        raise CorpusError(
            f"None of the {len(failed)} images of {path} can be read; the first: {failed[0][1].message}",
            path=path,
        )
    with progress.start("Encoding prompts", len(rows)) as task:
        truth = minilm.encode([row.texts[0] for row in rows])
        task.advance(len(rows))
    groups = similarity_groups(truth)
    if len(np.unique(groups)) < n_folds:
        raise CorpusError(
            f"The {len(rows)} pairs of {path} make {len(np.unique(groups))} groups of different prompts; {n_folds} folds need "
            f"at least {n_folds}.",
            path=path,
            hint="Give more pairs with different prompts, or fewer --folds.",
        )
    folds = np.zeros(len(rows), dtype=np.int64)
    for fold, (_, test) in enumerate(group_folds(groups, n_folds, seed=SEED)):
        folds[test] = fold
    kinds = sorted({row.kind for row in rows})
    chosen = kinds[main_kind(rows)]
    return PairSet(
        rows, truth, groups, folds, np.array([row.kind == chosen for row in rows]), failed
    )


def _readable(
    pairs: Sequence[Pair], *, progress: Progress
) -> tuple[tuple[Pair, ...], tuple[tuple[Path, ImageRejected], ...]]:
    rows, failed = [], []
    with progress.start("Checking images", len(pairs)) as task:
        for pair in pairs:
            try:
                open_image(pair.image).close()
                rows.append(pair)
            except ImageRejected as error:
                failed.append((pair.image, error))
            task.advance(1)
    return tuple(rows), tuple(failed)
