"""An attempt that is not shipped: let the last stages of a trunk of `lite` learn from the pairs.

    python benchmarks/lite_trunk.py --pairs PAIRS.parquet --pairs MORE.parquet --cache FOLDER

Writes benchmarks/results/lite_trunk.md. Sources are in four parts, as in `lite_head.py`; a part is
tested on a trunk that learned from the rest. The first five stages stay frozen, so their maps are
computed once and kept in the cache (0.3 to 0.5 GB a view), as are the answers of each trial. With
--trunk only the trials of that trunk are made.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.lite_layers import Upper
from benchmarks.lite_network import see, trunk_tensors
from benchmarks.lite_study import SOURCE_PARTS, Fold, Prediction, Study, brief_score, gains
from benchmarks.machine import ROOT, machine
from imprompt.core.splits import group_folds
from imprompt.core.values import Ids, unit_rows
from imprompt.encoders.efficientnet import POOLED_DIM
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
TEACHER_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """A trunk, the side of its images in pixels, the views to train on, and the epochs.

    The first `parts` of `SOURCE_PARTS` parts of the sources are tested. `taught` is the share that
    the shipped settings' answers have in the targets (distillation); they come from heads that did
    not see the text.
    """

    trunk: str
    side_px: int
    views: tuple[str, ...]
    epochs: int
    parts: int
    taught: float = 0.0

    @property
    def title(self) -> str:
        taught = f", {self.taught:g} of the targets from the shipped head" if self.taught else ""
        return f"{self.trunk}, {self.side_px} px{taught}"


_LITE0 = Trial("lite0", 224, ("whole", "mirrored", "centre"), epochs=5, parts=1)
TRIALS = (
    _LITE0,
    replace(_LITE0, taught=0.5),
    Trial("lite2", 260, ("whole", "crop1"), epochs=5, parts=1),
)
MIXES = (0.25, 0.5)


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
        prompts = study.examples.prompts.copy()
        if trial.taught:
            answers = _teacher(study, self.train)
            wanted = (1 - trial.taught) * wanted + trial.taught * answers
            taught = unit_rows(answers[:, : wanted.shape[1] // 2] + means[examples.kinds])
            mixed = (1 - trial.taught) * prompts[self.train] + trial.taught * taught
            prompts[self.train] = unit_rows(mixed)
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
        self.prompts = torch.tensor(prompts)
        self.texts = torch.tensor(unit_rows(prompts - study.constants.prompt_mean))
        self.groups = torch.tensor(study.groups)

    def answer(self, rows: Ids, view: int = 0) -> Tensor:
        """Return (n, 768): the two outputs for some rows."""
        planes = torch.tensor(self.maps[view][rows].astype(np.float32))
        pooled, stages = self.network(planes.contiguous(memory_format=torch.channels_last))
        parts = [torch.sqrt(pooled.clamp_min(1e-6)), self.lower[view][rows], stages]
        found: Tensor = self.linear((torch.cat(parts, 1) - self.centre) * self.scale)
        return found

    def test_answers(self) -> Matrix:
        """Return (n, 768): the two outputs for the test rows, the first with its intercept."""
        self.network.eval()
        with torch.no_grad():
            parts = [
                self.answer(self.test[begin : begin + BATCH])
                for begin in range(0, len(self.test), BATCH)
            ]
        found = torch.cat(parts).numpy()
        moved, within = np.split(found, 2, axis=1)
        return np.hstack([moved + self.bias, (moved + within) / 2])

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


def run_trial(study: Study, trial: Trial, folds: Sequence[Fold]) -> list[Prediction]:
    """Return what the trial answers before it learns and after each epoch, over all folds."""
    found = [learn(study, trial, part, fold) for part, fold in enumerate(folds)]
    rows = np.concatenate([test for _, test in folds])
    return [
        _prediction(study, rows, *np.split(np.concatenate(answers), 2, axis=1))
        for answers in zip(*found, strict=True)
    ]


def learn(study: Study, trial: Trial, part: int, fold: Fold) -> Matrix:
    """Return (1 + epochs, n, 768): the answers to the test rows; the cache keeps them."""
    name = f"{part}-{trial.epochs}-{trial.taught:g}"
    stored = study.file("learned", trial.trunk, trial.side_px, name, "npy")
    if stored.is_file():
        return np.asarray(np.load(stored), dtype=np.float32)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    learner = Learner(study, trial, fold)
    answers = [learner.test_answers()]
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
        answers.append(learner.test_answers())
        spent_s = time.monotonic() - start
        sys.stderr.write(f"{trial.title}, part {part + 1}, epoch {epoch}: {spent_s:.0f} s\n")
    made = np.stack(answers)
    np.save(stored, made)
    return made


def shipped_settings(study: Study, folds: Sequence[Fold]) -> Prediction:
    """Return what the shipped settings answer, before rows are scaled to unit length."""
    found = [_shipped_answers(study, *fold) for fold in folds]
    rows = np.concatenate([test for _, test in folds])
    return _prediction(study, rows, *np.split(np.concatenate(found), 2, axis=1))


def _shipped_answers(study: Study, train: Ids, test: Ids) -> Matrix:
    """Return (n, 768): the output with its intercept, and the index row, of test rows."""
    maps = study.fit(train)
    inputs = study.inputs(maps, test)
    output = inputs @ maps.output_weight + maps.output_bias
    return np.hstack([output, inputs @ maps.index_weight])


def _teacher(study: Study, rows: Ids) -> Matrix:
    """Return (n, 768): the shipped settings' two answers, without intercepts, out of fold."""
    found = np.zeros((len(rows), 2 * study.examples.prompts.shape[1]), np.float32)
    for train, test in group_folds(study.groups[rows], TEACHER_FOLDS, seed=0):
        maps = study.fit(rows[train])
        inputs = study.inputs(maps, rows[test])
        moved = inputs @ maps.output_weight
        found[test] = np.hstack([moved, 2 * inputs @ maps.index_weight - moved])
    return found


def _inner_maps(study: Study, trial: Trial, view: str) -> Any:
    stored = study.file("inner", trial.trunk, trial.side_px, view, "npy")
    if not stored.is_file():
        see(study, trial.trunk, trial.side_px, view, inner=stored)
    return np.load(stored, mmap_mode="r")


def _prediction(study: Study, rows: Ids, output: Matrix, index: Matrix) -> Prediction:
    outputs, indexes = np.zeros((2, len(study.rows), output.shape[1]), np.float32)
    outputs[rows], indexes[rows] = output, index
    return Prediction(outputs, indexes, study.constants.prompt_mean)


def _section(
    study: Study, trial: Trial, folds: Sequence[Fold], shipped: Prediction
) -> Iterator[str]:
    """Yield the lines of a trial."""
    sets = _test_sets(study, folds)
    first, further = (len(rows) for rows in sets)
    yield from (
        "",
        f"## {trial.title}",
        "",
        f"Learns from images {', '.join(trial.views)}. Parts tested: {trial.parts} of "
        f"{SOURCE_PARTS}, {first:,} images of the first file and {further:,} of the further "
        f"files; each learns from {min(len(train) for train, _ in folds):,} pairs or more.",
        "",
        "| | cosine, first file | R@10, first file | cosine, further files | R@10, further files |",
        "| --- | --- | --- | --- | --- |",
        _line(study, "**shipped settings**", shipped, sets),
    )
    probe, *epochs = run_trial(study, trial, folds)
    yield _line(study, "linear probe", probe, sets)
    for number, made in enumerate(epochs, 1):
        yield _line(study, f"epoch {number}", made, sets)
    mixed = {share: _mix(shipped, epochs[-1], share) for share in MIXES}
    for share, made in mixed.items():
        yield _line(study, f"{share} of it in the shipped settings", made, sets)
    for share, made in mixed.items():
        both = [
            str(gain)
            for rows in sets
            for gain in gains(study, _scaled(made, rows), _scaled(shipped, rows), rows)
        ]
        yield f"| gain of {share}, pair by pair | {' | '.join(both)} |"


def _mix(shipped: Prediction, other: Prediction, share: float) -> Prediction:
    return Prediction(
        (1 - share) * shipped.output + share * other.output,
        (1 - share) * shipped.index + share * other.index,
        shipped.text_mean,
    )


def _scaled(made: Prediction, rows: Ids) -> Prediction:
    """Return the prediction with index rows of unit length."""
    scaled = Prediction(made.output, made.index.copy(), made.text_mean)
    scaled.index[rows] = unit_rows(made.index[rows])
    return scaled


def _line(study: Study, name: str, made: Prediction, sets: Sequence[Ids]) -> str:
    cells = [
        f"{figure:.3f}" for rows in sets for figure in brief_score(study, _scaled(made, rows), rows)
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _test_sets(study: Study, folds: Sequence[Fold]) -> tuple[Ids, Ids]:
    rows = np.sort(np.concatenate([test for _, test in folds]))
    return rows[study.first[rows]], rows[~study.first[rows]]


def _header() -> list[str]:
    facts = ", ".join(f"{name} {value}" for name, value in machine("torch", "numpy").items())
    return [
        "# A trunk of `lite` that learns",
        "",
        f"Made by `python benchmarks/lite_trunk.py`; {facts}.",
        "",
        "The last two stages and the last layer learn from the pairs; the rest of the trunk is "
        "frozen. Tested on generated images of sources that were "
        f"left out, one part of {SOURCE_PARTS} after another, all as prompts. *R@10*: how often "
        "the right prompt is among the 10 nearest of up to 294 of the same set. *Linear probe*: "
        "ridge regression on the same trunk before it learns. In a mix the vectors are averaged "
        "before they are scaled to unit length. In brackets: 95 % intervals, bootstrap over "
        "groups.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=Path, action="append", required=True)
    parser.add_argument("--cache", type=Path, default=Path(".lite-study"))
    parser.add_argument("--trunk", choices=sorted({trial.trunk for trial in TRIALS}))
    args = parser.parse_args()
    study = Study(args.pairs, args.cache)
    parts = study.leave_sources_out(SOURCE_PARTS)
    lines = _header()
    RESULT.parent.mkdir(exist_ok=True)
    for trial in TRIALS:
        if args.trunk not in (None, trial.trunk):
            continue
        folds = parts[: trial.parts]
        for line in _section(study, trial, folds, shipped_settings(study, folds)):
            sys.stderr.write(line + "\n")
            lines.append(line)
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
