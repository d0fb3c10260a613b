"""The (image, prompt) pairs that answers are measured on, split into cross-validation folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import CorpusError, ImageRejected
from imprompt.core.protocols import Progress, TextEncoder
from imprompt.core.splits import group_folds, similarity_groups
from imprompt.core.values import Ids, Vectors
from imprompt.ensemble.training.head_training import main_kind
from imprompt.ensemble.training.pairs import Pair, read_pairs
from imprompt.images.decode import open_image

SEED = 0
LENGTHS = ((1, 10), (11, 20), (21, 40), (41, 10_000))
"""Bounds, in words, of the slices by prompt length."""


@dataclass(frozen=True, slots=True)
class PairSet:
    """n pairs to measure on, whose images can be decoded, and `extra` ones to learn from.

    `truth` (n, 384): unit rows, MiniLM of each pair's prompt. `groups` (n,): near-duplicate prompts
    share a group. `folds` (n,): the fold that tests a row; a group lies in one fold. `is_main` (n,)
    bool: rows of the main kind, the only ones that weights are fitted on. `failed`: the images that
    cannot be decoded; they have no row. `extra` pairs teach the head of `lite` and are not
    measured; `extra_folds` has the fold of their group, -1 if no measured pair is in it.
    """

    rows: tuple[Pair, ...]
    truth: Vectors
    groups: Ids
    folds: Ids
    is_main: NDArray[np.bool_]
    failed: tuple[tuple[Path, ImageRejected], ...]
    extra: tuple[Pair, ...] = ()
    extra_folds: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_folds(self) -> int:
        return int(self.folds.max()) + 1

    @property
    def main_rows(self) -> Ids:
        """Return the rows of the main kind."""
        return np.flatnonzero(self.is_main)

    def of_fold(self, fold: int) -> Ids:
        """Return the rows that a fold tests."""
        return np.flatnonzero(self.folds == fold)

    @property
    def taught(self) -> tuple[Pair, ...]:
        """Return all pairs that a head may learn from: the rows, then the extra ones."""
        return (*self.rows, *self.extra)

    def without(self, folds: frozenset[int]) -> Ids:
        """Return the positions in `taught` of the pairs outside these folds."""
        return np.flatnonzero(~np.isin(np.append(self.folds, self.extra_folds), list(folds)))

    def training_rows(self, fold: int) -> Ids:
        """Return the main kind's rows outside a fold, or all rows outside it if there are none."""
        outside = self.folds != fold
        main = outside & self.is_main
        return np.flatnonzero(main if main.any() else outside)

    def slices(self) -> dict[tuple[str, str], Ids]:
        """Map (criterion, value) to rows.

        All rows; by kind and by generator if there are several; by length, the rows of the main
        kind only.
        """
        slices: dict[tuple[str, str], Ids] = {("all", "all"): np.arange(len(self))}
        for by, names in (
            ("kind", [row.kind for row in self.rows]),
            ("generator", [row.generator for row in self.rows]),
        ):
            labels = np.array(names, dtype=str)
            if len(set(names)) > 1:
                for name in sorted(set(names)):
                    slices[by, name or "not stated"] = np.flatnonzero(labels == name)
        words = np.array([len(row.texts[0].split()) for row in self.rows])
        for low, high in LENGTHS:
            rows = np.flatnonzero((words >= low) & (words <= high) & self.is_main)
            is_last = high == LENGTHS[-1][1]
            name = f"{low} words and more" if is_last else f"{low} to {high} words"
            if len(rows):
                slices["length", name] = rows
        return slices


def load_pair_set(
    path: Path, *, minilm: TextEncoder, n_folds: int, progress: Progress, extra: Sequence[Path] = ()
) -> PairSet:
    """Read the pairs of a file and split them into folds of whole groups of near-duplicate prompts.

    Args:
        extra: files of pairs that the head of `lite` also learns from; they join the groups.

    Raises:
        CorpusError: a file cannot be read, an image is missing, no image can be decoded, or there
            are fewer groups than folds.
    """
    rows, failed = _decodable(read_pairs(path), progress=progress)
    if not rows:
        raise CorpusError(
            f"None of the {len(failed)} images of {path} can be read; "
            f"the first: {failed[0][1].message}",
            path=path,
        )
    more, more_failed = _decodable(
        [pair for file in extra for pair in read_pairs(file)], progress=progress
    )
    prompts = [row.texts[0] for row in (*rows, *more)]
    with progress.start("Encoding prompts", len(prompts)) as task:
        vectors = minilm.encode(prompts)
        task.advance(len(prompts))
    groups, extra_groups = np.split(similarity_groups(vectors), [len(rows)])
    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        raise CorpusError(
            f"The {len(rows)} pairs of {path} make {n_groups} groups of different prompts; "
            f"{n_folds} folds need at least {n_folds}.",
            path=path,
            hint="Add pairs with different prompts, or lower --folds.",
        )
    folds = np.zeros(len(rows), dtype=np.int64)
    for fold, (_, test) in enumerate(group_folds(groups, n_folds, seed=SEED)):
        folds[test] = fold
    fold_of_group = dict(zip(groups.tolist(), folds.tolist(), strict=True))
    kind = sorted({row.kind for row in rows})[main_kind(rows)]
    return PairSet(
        rows=rows,
        truth=vectors[: len(rows)],
        groups=groups,
        folds=folds,
        is_main=np.array([row.kind == kind for row in rows]),
        extra=more,
        extra_folds=np.array(
            [fold_of_group.get(group, -1) for group in extra_groups.tolist()], np.int64
        ),
        failed=(*failed, *more_failed),
    )


def _decodable(
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
