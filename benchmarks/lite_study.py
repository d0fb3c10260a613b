"""Shared by the experiments on the head of `lite`: pairs, activations by view, folds, scores."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lite_network import SEEN, Seen, see
from imprompt.core.metrics import Estimate, group_bootstrap, row_cosines
from imprompt.core.progress import SILENT
from imprompt.core.splits import group_folds, similarity_groups
from imprompt.core.values import Ids, Vectors, unit_rows
from imprompt.encoders.efficientnet import SIDE_PX, Activations
from imprompt.encoders.lite import HEAD_PATH
from imprompt.encoders.lite_head import PHOTO_ODDS, TRUNKS, LiteHead, expanded, features, read_head
from imprompt.encoders.minilm import load_minilm
from imprompt.ensemble.ridge import Matrix
from imprompt.ensemble.training.head_regression import FittedMaps, HeadExamples, fit_maps
from imprompt.ensemble.training.head_training import main_kind, make_examples, make_head
from imprompt.ensemble.training.pairs import Pair, read_pairs

CANDIDATES = 294
SEEDS = 20
LARGE_SOURCE = 200
SOURCE_PARTS = 4

Fold = tuple[Ids, Ids]


@dataclass(eq=False)
class Study:
    """The pairs of some files, encoded once; `cache` keeps vectors and activations between runs.

    `lite1` is the weights' file of EfficientNet-Lite1, which the product does not have.
    `kind_chances` keeps the probabilities of `lite_kinds.py` by fold.
    """

    paths: Sequence[Path]
    cache: Path
    lite1: Path | None = None
    kind_chances: dict[bytes, tuple[Matrix, Matrix]] = field(default_factory=dict)
    _fits: dict[tuple[bytes, float], FittedMaps] = field(default_factory=dict)

    @cached_property
    def rows(self) -> list[Pair]:
        return [row for path in self.paths for row in read_pairs(path)]

    @cached_property
    def constants(self) -> LiteHead:
        """Return the shipped head: class names and mean of prompts."""
        return read_head(HEAD_PATH)

    @cached_property
    def _encoded(self) -> HeadExamples:
        inputs = features(self.activations(), self.constants.class_vectors)
        stored = self.cache / f"examples-{self._digest}.npz"
        if stored.is_file():
            with np.load(stored) as arrays:
                return HeadExamples(inputs, **{name: arrays[name] for name in arrays})
        made = make_examples(self.rows, inputs, minilm=load_minilm(), progress=SILENT)
        np.savez(
            stored,
            prompts=made.prompts,
            targets=made.targets,
            kinds=made.kinds,
            sources=made.sources,
            tags=made.tags,
        )
        return made

    @cached_property
    def examples(self) -> HeadExamples:
        """Return all pairs with the features of the shipped head, but without tags, for speed."""
        made = self._encoded
        none = made.tags[:, :0]
        return HeadExamples(
            made.features, made.prompts, made.targets, made.kinds, made.sources, none
        )

    @property
    def tags(self) -> NDArray[np.bool_]:
        """Return (n, t): which of `tag_words` the texts of each pair hold."""
        return self._encoded.tags

    def activations(self, rows: Ids | None = None) -> dict[str, Activations]:
        """Return what the shipped head reads of some rows, by default all."""
        chosen = slice(None) if rows is None else rows
        return {
            name: Activations(seen.pooled[chosen], seen.stages[chosen], seen.logits[chosen])
            for name, seen in ((name, self.seen(name, SIDE_PX[name])) for name in TRUNKS)
        }

    def seen(self, trunk: str, side_px: int, view: str = "whole") -> Seen:
        """Return a trunk's activations of every image, under one of `lite_network.VIEWS`."""
        stored = self.file("seen", trunk, side_px, view, "npz")
        if not stored.is_file():
            see(self, trunk, side_px, view, inner=None)
        with np.load(stored) as arrays:
            return Seen(*(arrays[name] for name in SEEN))

    def file(self, what: str, trunk: str, side_px: int, view: str, suffix: str) -> Path:
        """Return where the cache keeps something of a trunk and a view."""
        return self.cache / f"{what}-{trunk}-{side_px}-{view}-{self._digest}.{suffix}"

    @cached_property
    def _digest(self) -> str:
        self.cache.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    @cached_property
    def generated(self) -> NDArray[np.bool_]:
        return np.array([row.kind == "generated" for row in self.rows])

    @cached_property
    def first(self) -> NDArray[np.bool_]:
        """Return (n,): whether a row is of the first file."""
        return np.arange(len(self.rows)) < len(read_pairs(self.paths[0]))

    @cached_property
    def exact(self) -> NDArray[np.bool_]:
        """Return (n,): whether a text is thought to be the image's prompt (`prompt_exact`)."""
        import pyarrow.parquet as pq

        tables = [pq.read_table(path, columns=["prompt_exact"]) for path in self.paths]
        return np.concatenate([table.column(0).to_numpy().astype(bool) for table in tables])

    @cached_property
    def kind(self) -> int:
        """Return the code of generated images in `examples.kinds`."""
        return main_kind(self.rows)

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
        """Return folds of whole sources of generated images: large ones alone, the rest in four."""
        return self.leave_sources_out(SOURCE_PARTS, alone=LARGE_SOURCE)

    def leave_sources_out(self, parts: int, *, alone: int | None = None) -> list[Fold]:
        """Return folds of sources of generated images, in parts of about equal size.

        Sources of `alone` rows or more make a fold each. Training rows of the same source, or of a
        text group of the test rows, are left out.
        """
        sources = self.examples.sources
        counts = Counter(sources[self.generated].tolist())
        large = [source for source in sorted(counts) if alone and counts[source] >= alone]
        small: list[list[int]] = [[] for _ in range(parts)]
        for source in sorted(counts.keys() - set(large), key=lambda one: (-counts[one], one)):
            min(small, key=lambda part: sum(counts[one] for one in part)).append(source)
        folds = []
        for left_out in [*([source] for source in large), *small]:
            mine = np.isin(sources, left_out)
            test = np.flatnonzero(mine & self.generated)
            folds.append((np.flatnonzero(~mine & ~np.isin(self.groups, self.groups[test])), test))
        return folds

    def fit(self, train: Ids, *, smoothness: float = 1.0) -> FittedMaps:
        """Return the maps that `train` would fit to these rows, without tags; fitted once."""
        key = (train.tobytes(), smoothness)
        if key not in self._fits:
            self._fits[key] = fit_maps(
                self.examples[train],
                prompt_mean=self.constants.prompt_mean,
                main_kind=self.kind,
                smoothness=smoothness,
            )
        return self._fits[key]

    def inputs(self, maps: FittedMaps, rows: Ids) -> Matrix:
        """Return what the maps read of some rows, (n, 2432)."""
        scaled = (self.examples.features[rows] - maps.centre) * maps.scale
        return expanded(scaled, maps.basis)

    def head(self, maps: FittedMaps) -> LiteHead:
        """Return the head of fitted maps."""
        return make_head(maps, constants=self.constants, training={})


@dataclass(frozen=True, slots=True)
class Prediction:
    """The out-of-fold vectors of every row.

    `output` in MiniLM space; `index` to be compared with texts minus `text_mean`.
    """

    output: Matrix
    index: Matrix
    text_mean: Matrix


def photo_share(maps: FittedMaps, inputs: Matrix) -> NDArray[np.float64]:
    """Return (n,): how much of the wording of captions `LiteHead.outputs` takes."""
    logits = inputs @ maps.label_weight[:, 0] * maps.label_slope[0] + maps.label_intercept[0]
    odds = PHOTO_ODDS * np.exp(np.clip(logits, -50, 50).astype(np.float64))
    return np.asarray(odds / (1 + odds), dtype=np.float64)


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


def cosines(study: Study, prediction: Prediction, rows: Ids) -> Matrix:
    """Return (n,) cosines of the outputs with MiniLM's vectors of the prompts."""
    return row_cosines(unit_rows(prediction.output[rows]), study.examples.prompts[rows])


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean cosine in MiniLM space, and recall@1 and @10 among 294 prompts in the index space."""

    cosine: Estimate
    recall_1: Estimate
    recall_10: Estimate


def score(study: Study, prediction: Prediction, rows: Ids) -> Scores:
    """Return the scores of some rows, with 95 % intervals over groups of texts."""
    rng = np.random.default_rng(0)
    found_1, answered = hits(study, prediction, rows, 1)
    found_10, _ = hits(study, prediction, rows, 10)
    return Scores(
        *(
            group_bootstrap(values, study.groups[of], rng=rng, resamples=1000)
            for values, of in (
                (cosines(study, prediction, rows), rows),
                (found_1, answered),
                (found_10, answered),
            )
        )
    )


def gains(study: Study, made: Prediction, base: Prediction, rows: Ids) -> tuple[Estimate, Estimate]:
    """Return by how much `made` beats `base` in cosine and recall@10, pair by pair."""
    rng = np.random.default_rng(0)
    nearer = cosines(study, made, rows) - cosines(study, base, rows)
    found, answered = hits(study, made, rows, 10)
    found = found - hits(study, base, rows, 10)[0]
    return (
        group_bootstrap(nearer, study.groups[rows], rng=rng, resamples=1000),
        group_bootstrap(found, study.groups[answered], rng=rng, resamples=1000),
    )


def brief_score(study: Study, prediction: Prediction, rows: Ids) -> tuple[float, float]:
    """Return mean cosine and recall@10 of some rows."""
    found, _ = hits(study, prediction, rows, 10)
    return float(cosines(study, prediction, rows).mean()), float(found.mean())


def text_vectors(prompts: Sequence[str]) -> Vectors:
    """Return (n, 384) MiniLM vectors."""
    return load_minilm().encode(prompts)
