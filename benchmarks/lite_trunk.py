"""An attempt that is not shipped: let the last stages of a trunk of `lite` learn from the pairs.

    python benchmarks/lite_trunk.py --pairs PAIRS.parquet --pairs MORE.parquet --cache FOLDER

Writes benchmarks/results/lite_trunk.md. Sources are in four parts, as in `lite_head.py`; the first
part is tested, the rest trains. The first five stages stay frozen, so their maps are computed once
and kept in the cache (0.3 to 0.5 GB a view); after that a run takes half an hour on a core.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.lite_layers import Upper
from benchmarks.lite_network import see, trunk_tensors
from benchmarks.lite_study import Fold, Prediction, Study, brief_score
from benchmarks.machine import ROOT, machine
from imprompt.core.values import Ids, unit_rows
from imprompt.encoders.efficientnet import POOLED_DIM
from imprompt.encoders.lite_head import expanded
from imprompt.ensemble.ridge import Matrix, block_scales, ridge
from imprompt.ensemble.training.head_regression import (
    PROMPT_MEAN_SHARE,
    class_means,
    group_weights,
    source_mean,
    within_sources,
)

RESULT = ROOT / "benchmarks" / "results" / "lite_trunk.md"
BATCH = 64
LINEAR_PENALTY = 0.006
LEARNING_RATE, HEAD_RATE, WEIGHT_DECAY = 2e-4, 3e-5, 0.05
CONTRAST_SHARE, TEMPERATURE = 0.2, 0.07
WARM_UP_STEPS = 50


@dataclass(frozen=True, slots=True)
class Trial:
    """A trunk, the side of its images in pixels, the views to train on, and the epochs."""

    trunk: str
    side_px: int
    views: tuple[str, ...]
    epochs: int


TRIALS = (
    Trial("lite0", 224, ("whole", "crop1", "crop2", "crop3"), 6),
    Trial("lite2", 260, ("whole", "crop1"), 5),
)


class Learner:
    """The upper stages and a linear map of what they see, on the training rows of a fold.

    The map starts as ridge regression and has the two outputs of `head_regression.fit_maps`: what
    differs from the mean of the kind, and from the mean of the source.
    """

    def __init__(self, study: Study, trial: Trial, fold: Fold) -> None:
        self.study, self.trial = study, trial
        self.train, self.test = fold
        tensors = trunk_tensors(trial.trunk, study.lite1)
        self.maps = [_inner_maps(study, trial, name) for name in trial.views]
        seen = [study.seen(trial.trunk, trial.side_px, name) for name in trial.views]
        self.network = Upper(trial.trunk, tensors).to(memory_format=torch.channels_last)
        n_upper = self.network(torch.tensor(self.maps[0][:1].astype(np.float32)))[1].shape[1]
        self.lower = [torch.tensor(one.stages[:, :-n_upper]) for one in seen]
        inputs = np.concatenate([np.sqrt(seen[0].pooled), seen[0].stages], axis=1)
        examples = study.examples[self.train]
        means = class_means(examples.targets, examples.kinds)
        wanted = np.hstack(
            [examples.targets - means[examples.kinds], within_sources(examples)]
        ).astype(np.float32)
        weights = group_weights(study.groups[self.train])
        centre, scale = block_scales(
            inputs[self.train], (POOLED_DIM, inputs.shape[1] - POOLED_DIM), (1.0, 2.0)
        )
        start = ridge(
            (inputs[self.train] - centre) * scale,
            wanted,
            penalty=LINEAR_PENALTY,
            row_weights=weights,
        )
        self.centre, self.scale = torch.tensor(centre), torch.tensor(scale)
        self.linear = nn.Linear(start.shape[0], start.shape[1], bias=False)
        self.linear.weight.data = torch.tensor(start.T.copy())
        kind_mean = source_mean(examples, kind=study.kind)
        self.bias = (
            1 - PROMPT_MEAN_SHARE
        ) * kind_mean + PROMPT_MEAN_SHARE * study.constants.prompt_mean
        n = len(study.rows)
        self.wanted, self.weights = torch.zeros(n, wanted.shape[1]), torch.zeros(n)
        self.wanted[self.train] = torch.tensor(wanted)
        self.weights[self.train] = torch.tensor(weights / weights.mean(), dtype=torch.float32)
        kinds = study.examples.kinds[:, None]
        self.intercepts = torch.tensor(
            np.where(kinds == study.kind, self.bias, means[kinds[:, 0]]), dtype=torch.float32
        )
        self.prompts = torch.tensor(study.examples.prompts)
        self.texts = torch.tensor(unit_rows(study.examples.prompts - study.constants.prompt_mean))
        self.groups = torch.tensor(study.groups)

    def answer(self, rows: Ids, view: int = 0) -> Tensor:
        """Return (n, 768): the two outputs for some rows."""
        planes = torch.tensor(self.maps[view][rows].astype(np.float32))
        pooled, stages = self.network(planes.contiguous(memory_format=torch.channels_last))
        parts = [torch.sqrt(pooled.clamp_min(1e-6)), self.lower[view][rows], stages]
        found: Tensor = self.linear((torch.cat(parts, 1) - self.centre) * self.scale)
        return found

    def predict(self) -> Prediction:
        """Return the vectors of the test rows."""
        self.network.eval()
        with torch.no_grad():
            parts = [
                self.answer(self.test[begin : begin + BATCH])
                for begin in range(0, len(self.test), BATCH)
            ]
        moved, within = np.split(torch.cat(parts).numpy(), 2, axis=1)
        return _prediction(self.study, self.test, moved + self.bias, (moved + within) / 2)

    def loss(self, rows: Ids, view: int) -> Tensor:
        """Return squared error + 1 - cosine + .2 InfoNCE; a text's group has no negatives."""
        found = self.answer(rows, view)
        moved, within = torch.chunk(found, 2, dim=1)
        error = ((found - self.wanted[rows]) ** 2).sum(1)
        output = functional.normalize(moved + self.intercepts[rows], dim=1)
        far = 1 - (output * self.prompts[rows]).sum(1)
        scores = functional.normalize(moved + within, dim=1) @ self.texts[rows].T / TEMPERATURE
        groups = self.groups[rows]
        same = (groups[:, None] == groups) & ~torch.eye(len(rows), dtype=torch.bool)
        scores, truth = scores.masked_fill(same, -1e4), torch.arange(len(rows))
        contrast = functional.cross_entropy(scores, truth, reduction="none")
        contrast = contrast + functional.cross_entropy(scores.T, truth, reduction="none")
        losses = error + far + CONTRAST_SHARE * contrast / 2
        return (losses * self.weights[rows]).mean()


def run_trial(study: Study, trial: Trial, fold: Fold, shipped: Prediction) -> list[str]:
    """Return the lines of a trial: the linear probe, each epoch, and the mixes."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    learner = Learner(study, trial, fold)
    name = f"{trial.trunk}, {trial.side_px} px"
    lines = [_line(study, f"{name}: linear probe", learner.predict(), fold)]
    parameters = list(learner.network.parameters())
    parts: list[dict[str, Any]] = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [one for one in parameters if one.ndim == 1]},
        {"params": learner.linear.parameters(), "lr": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(parts, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    steps = trial.epochs * (len(learner.train) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / WARM_UP_STEPS) * (1 + math.cos(math.pi * step / steps)) / 2
        ),
    )
    for epoch in range(1, trial.epochs + 1):
        start = time.monotonic()
        learner.network.train()
        order = rng.permutation(learner.train)
        for begin in range(0, len(order) - BATCH + 1, BATCH):
            loss = learner.loss(order[begin : begin + BATCH], int(rng.integers(len(trial.views))))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
        sys.stderr.write(f"epoch {epoch}: {time.monotonic() - start:.0f} s\n")
        alone = learner.predict()
        lines.append(_line(study, f"{name}: epoch {epoch}", alone, fold))
    for share in (0.25, 0.5):
        mixed = Prediction(
            (1 - share) * shipped.output + share * alone.output,
            (1 - share) * shipped.index + share * alone.index,
            shipped.text_mean,
        )
        lines.append(_line(study, f"{name}: {share} of it in the shipped settings", mixed, fold))
    return lines


def shipped_settings(study: Study, fold: Fold) -> Prediction:
    """Return what the shipped settings answer, before rows are scaled to unit length."""
    maps = study.fit(fold[0])
    scaled = (study.examples.features[fold[1]] - maps.centre) * maps.scale
    inputs = expanded(scaled, maps.basis)
    output = inputs @ maps.output_weight + maps.output_bias
    return _prediction(study, fold[1], output, inputs @ maps.index_weight)


def _inner_maps(study: Study, trial: Trial, view: str) -> Any:
    stored = study.file("inner", trial.trunk, trial.side_px, view, "npy")
    if not stored.is_file():
        see(study, trial.trunk, trial.side_px, view, inner=stored)
    return np.load(stored, mmap_mode="r")


def _prediction(study: Study, rows: Ids, output: Matrix, index: Matrix) -> Prediction:
    outputs, indexes = np.zeros((2, len(study.rows), output.shape[1]), np.float32)
    outputs[rows], indexes[rows] = output, index
    return Prediction(outputs, indexes, study.constants.prompt_mean)


def _line(study: Study, name: str, made: Prediction, fold: Fold) -> str:
    scored = Prediction(made.output, made.index.copy(), made.text_mean)
    scored.index[fold[1]] = unit_rows(made.index[fold[1]])
    cells = [
        f"{figure:.3f}"
        for rows in _test_sets(study, fold)
        for figure in brief_score(study, scored, rows)
    ]
    line = f"| {name} | {' | '.join(cells)} |"
    sys.stderr.write(line + "\n")
    return line


def _test_sets(study: Study, fold: Fold) -> tuple[Ids, Ids]:
    return fold[1][study.first[fold[1]]], fold[1][~study.first[fold[1]]]


def _header(study: Study, fold: Fold) -> Sequence[str]:
    facts = ", ".join(f"{name} {value}" for name, value in machine("torch", "numpy").items())
    first, further = (len(rows) for rows in _test_sets(study, fold))
    return [
        "# A trunk of `lite` that learns",
        "",
        f"Made by `python benchmarks/lite_trunk.py`; {facts}.",
        "",
        f"The last two stages and the last layer learn from {len(fold[0]):,} pairs, on whole "
        "images and random crops; the rest of the trunk is frozen. Tested on generated images of "
        f"sources that were left out, one part of four: {first:,} of the first file, "
        f"{further:,} of the further files, all as prompts. *R@10*: how often the right prompt is "
        "among the 10 nearest of up to 294 of the same set. *Linear probe*: ridge regression on "
        "the same trunk before it learns. In a mix the vectors are averaged before they are "
        "scaled to unit length.",
        "",
        "| | cosine, first file | R@10, first file | cosine, further files | R@10, further files |",
        "| --- | --- | --- | --- | --- |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=Path, action="append", required=True)
    parser.add_argument("--cache", type=Path, default=Path(".lite-study"))
    args = parser.parse_args()
    study = Study(args.pairs, args.cache)
    fold = study.leave_sources_out(4)[0]
    shipped = shipped_settings(study, fold)
    lines = [*_header(study, fold), _line(study, "**shipped settings**", shipped, fold)]
    RESULT.parent.mkdir(exist_ok=True)
    for trial in TRIALS:
        lines += run_trial(study, trial, fold, shipped)
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
