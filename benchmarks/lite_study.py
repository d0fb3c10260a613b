"""Shared by the experiments on the head of `lite`: pairs, activations by view, folds, scores."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Transpose

from imprompt.core.metrics import Estimate, group_bootstrap
from imprompt.core.progress import SILENT
from imprompt.core.splits import group_folds, similarity_groups
from imprompt.core.values import Ids, Vectors, unit_rows
from imprompt.encoders.efficientnet import SIDE_PX, Activations, EfficientNetLite
from imprompt.encoders.graphs.write_graphs import write_trunk
from imprompt.encoders.lite import HEAD_PATH
from imprompt.encoders.lite_head import TRUNKS, LiteHead, features, read_head
from imprompt.encoders.minilm import load_minilm
from imprompt.ensemble.ridge import Matrix
from imprompt.ensemble.training.head_regression import HeadExamples
from imprompt.ensemble.training.head_training import make_examples
from imprompt.ensemble.training.pairs import Pair, read_pairs
from imprompt.images.decode import open_image

CANDIDATES = 294
SEEDS = 20
LARGE_SOURCE = 80
_SEEN = ("pooled", "stages", "logits")
VIEWS: dict[str, Callable[[Image], Image]] = {
    "whole": lambda image: image,
    "mirrored": lambda image: image.transpose(Transpose.FLIP_LEFT_RIGHT),
    "centre": lambda image: image.crop(_centre(image.size)),
}

Fold = tuple[Ids, Ids]


def _centre(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Crop the middle square, seven eighths of the shorter side."""
    side = min(size) * 7 // 8
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


@dataclass(eq=False)
class Study:
    """The pairs of a file, encoded once; `cache` keeps vectors and activations between runs."""

    path: Path
    cache: Path

    @cached_property
    def rows(self) -> list[Pair]:
        return read_pairs(self.path)

    @cached_property
    def constants(self) -> LiteHead:
        """Return the shipped head: class names and mean of prompts."""
        return read_head(HEAD_PATH)

    @cached_property
    def examples(self) -> HeadExamples:
        """Return all pairs with the features of the shipped head."""
        seen = {name: self.seen(name, SIDE_PX[name]) for name in TRUNKS}
        stored = self.cache / f"examples-{self._digest}.npz"
        if stored.is_file():
            arrays = np.load(stored)
            return HeadExamples(
                features(seen, self.constants.class_vectors),
                **{name: arrays[name] for name in arrays},
            )
        made = make_examples(
            self.rows,
            features(seen, self.constants.class_vectors),
            minilm=load_minilm(),
            progress=SILENT,
        )
        np.savez(
            stored,
            prompts=made.prompts,
            targets=made.targets,
            kinds=made.kinds,
            sources=made.sources,
        )
        return made

    def seen(self, trunk: str, side_px: int, view: str = "whole") -> Activations:
        """Return a trunk's activations of every image, under one of `VIEWS`."""
        stored = self.cache / f"seen-{trunk}-{side_px}-{view}-{self._digest}.npz"
        if not stored.is_file():
            graphs = self.cache / f"graphs-{side_px}"
            graphs.mkdir(exist_ok=True)
            write_trunk(graphs, trunk, side_px)
            network = EfficientNetLite(trunk, graphs=graphs, side_px=side_px)
            parts = [
                network.activations(
                    [VIEWS[view](open_image(row.image)) for row in self.rows[begin : begin + 16]]
                )
                for begin in range(0, len(self.rows), 16)
            ]
            pooled, stages, logits = (
                np.concatenate([getattr(part, name) for part in parts]) for name in _SEEN
            )
            np.savez(stored, pooled=pooled, stages=stages, logits=logits)
        arrays = np.load(stored)
        return Activations(*(arrays[name] for name in _SEEN))

    @cached_property
    def _digest(self) -> str:
        self.cache.mkdir(parents=True, exist_ok=True)
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]

    @cached_property
    def generated(self) -> NDArray[np.bool_]:
        return np.array([row.kind == "generated" for row in self.rows])

    @cached_property
    def groups(self) -> Ids:
        return similarity_groups(self.examples.prompts)

    @cached_property
    def text_ids(self) -> Ids:
        """Return (n,) ids, equal for equal prompts: the first row of each."""
        _, first, inverse = np.unique(
            [row.texts[0] for row in self.rows], return_index=True, return_inverse=True
        )
        return first[inverse]

    @cached_property
    def folds(self) -> list[Fold]:
        """Return five folds of groups of texts."""
        return list(group_folds(self.groups, 5, seed=0))

    @cached_property
    def source_folds(self) -> list[Fold]:
        """Return folds of whole sources of generated images: large ones alone, small ones in two.

        Training rows of the same source, or of a text group of the test rows, are left out.
        """
        sources = self.examples.sources
        counts = Counter(sources[self.generated].tolist())
        large = [[source] for source, count in counts.items() if count >= LARGE_SOURCE]
        small = np.random.default_rng(0).permutation(
            sorted(source for source, count in counts.items() if count < LARGE_SOURCE)
        )
        folds = []
        for left_out in [*large, *(part.tolist() for part in np.array_split(small, 2))]:
            mine = np.isin(sources, left_out)
            test = np.flatnonzero(mine & self.generated)
            folds.append((np.flatnonzero(~mine & ~np.isin(self.groups, self.groups[test])), test))
        return folds


@dataclass(frozen=True, slots=True)
class Prediction:
    """The out-of-fold vectors of every row.

    `output` in MiniLM space; `index` to be compared with texts minus `text_mean`.
    """

    output: Matrix
    index: Matrix
    text_mean: Matrix


def hits(
    study: Study, prediction: Prediction, rows: Ids, k: int
) -> tuple[NDArray[np.float64], Ids]:
    """Return each row's rate of finding its prompt among the k nearest of 294, over 20 draws.

    Each draw takes 294 different prompts of `rows` as candidates; their images are the queries.
    Also return the rows that any draw queried.
    """
    found, asked = np.zeros(len(study.rows)), np.zeros(len(study.rows))
    texts = unit_rows(study.examples.prompts - prediction.text_mean)
    for seed in range(SEEDS):
        names = np.unique(study.text_ids[rows])
        drawn = np.random.default_rng(seed).choice(
            names, min(CANDIDATES, len(names)), replace=False
        )
        questions = rows[np.isin(study.text_ids[rows], drawn)]
        scores = prediction.index[questions] @ texts[drawn].T
        own = np.einsum("nd,nd->n", prediction.index[questions], texts[study.text_ids[questions]])
        found[questions] += (scores >= own[:, None] - 1e-6).sum(axis=1) <= k
        asked[questions] += 1
    answered = np.flatnonzero(asked)
    return found[answered] / asked[answered], answered


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean cosine in MiniLM space, and recall@1 and @10 among 294 prompts in the index space."""

    cosine: Estimate
    recall_1: Estimate
    recall_10: Estimate


def score(study: Study, prediction: Prediction, rows: Ids) -> Scores:
    """Return the scores of some rows, with 95 % intervals over groups of texts."""
    rng = np.random.default_rng(0)
    cosines = np.einsum(
        "nd,nd->n", unit_rows(prediction.output[rows]), study.examples.prompts[rows]
    )
    found_1, answered = hits(study, prediction, rows, 1)
    found_10, _ = hits(study, prediction, rows, 10)
    return Scores(
        group_bootstrap(cosines, study.groups[rows], rng=rng, resamples=1000),
        group_bootstrap(found_1, study.groups[answered], rng=rng, resamples=1000),
        group_bootstrap(found_10, study.groups[answered], rng=rng, resamples=1000),
    )


def across_folds(
    folds: Sequence[Fold],
    answer: Callable[[Ids, Ids], tuple[Matrix, Matrix]],
    n: int,
    *,
    mean: Matrix,
) -> Prediction:
    """Return the predictions of all test rows.

    `answer(train, test)` returns output and index vectors of the test rows.
    """
    output, index = np.zeros((n, 384), np.float32), np.zeros((n, 384), np.float32)
    for train, test in folds:
        output[test], index[test] = answer(train, test)
    return Prediction(output, unit_rows(index), mean)


def text_vectors(prompts: Sequence[str]) -> Vectors:
    """Return (n, 384) MiniLM vectors."""
    return load_minilm().encode(prompts)
