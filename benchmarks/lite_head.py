"""The experiments on the head of `lite`: baselines, the shipped settings, and all attempts.

    python benchmarks/lite_head.py --pairs PAIRS.parquet --cache FOLDER

Writes aggregate figures to benchmarks/results/lite_head.md. The first run looks at each image
several times, an hour on a core; the cache keeps the activations, and a second run takes minutes.

    python benchmarks/lite_head.py --prompts PROMPTS.parquet --prompts MORE.parquet
                                   --constants HEAD.safetensors

writes the constants of a first head (class names, mean of prompts) for `imprompt train`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lite_attempts import ATTEMPTS, Attempt, run_attempt
from benchmarks.lite_study import Fold, Prediction, Scores, Study, across_folds, score, text_vectors
from benchmarks.machine import ROOT, machine
from imprompt.core.metrics import group_bootstrap, row_cosines
from imprompt.core.values import Ids, unit_rows
from imprompt.encoders.efficientnet import CLASSES
from imprompt.encoders.lite import backbone_digests
from imprompt.encoders.lite_head import (
    BASIS_DIM,
    EXPANDED_DIM,
    FEATURE_DIM,
    TEXT_DIM,
    LiteHead,
    conse,
    expanded,
    write_head,
)
from imprompt.ensemble.ridge import Matrix, block_scales, ridge
from imprompt.ensemble.training.head_regression import fit_maps

RESULT = ROOT / "benchmarks" / "results" / "lite_head.md"
PERMISSIVE = frozenset(
    {"MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause", "BSD-2-Clause"}
)
PROMPT_SAMPLES = (1500, 1000)

Answer = Callable[[Ids, Ids], tuple[Matrix, Matrix]]


def constant(study: Study) -> Answer:
    """Answer by the mean prompt of the training rows of each kind; it has no index vector."""

    def answer(train: Ids, test: Ids) -> tuple[Matrix, Matrix]:
        prompts, kinds = study.examples.prompts, study.examples.kinds
        rows = np.stack([prompts[train][kinds[train] == kind].mean(axis=0) for kind in kinds[test]])
        return rows, np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32)

    return answer


def conse_alone(study: Study) -> Answer:
    """Answer by the names of the likeliest classes, without training."""
    rows = conse(study.seen("lite2", 260).logits, study.constants.class_vectors)
    mean = study.constants.class_vectors.mean(axis=0)
    return lambda _, test: (rows[test], rows[test] - mean)


def plain_ridge(study: Study) -> Answer:
    """Answer by the prototype: ridge on lite2's pooled features, log-probabilities, ConSE."""
    seen = study.seen("lite2", 260)
    logits = seen.logits - seen.logits.max(axis=1, keepdims=True)
    logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    blocks = [seen.pooled, logits, conse(seen.logits, study.constants.class_vectors)]
    inputs = np.concatenate(blocks, axis=1)
    widths = tuple(block.shape[1] for block in blocks)

    def answer(train: Ids, test: Ids) -> tuple[Matrix, Matrix]:
        prompts = study.examples.prompts[train]
        centre, scale = block_scales(inputs[train], widths, tuple(map(float, widths)))
        weight = ridge(
            (inputs[train] - centre) * scale,
            prompts - prompts.mean(axis=0),
            penalty=0.002,
            row_weights=np.ones(len(train)),
        )
        rows = np.asarray(
            (inputs[test] - centre) * scale @ weight + prompts.mean(axis=0), dtype=np.float32
        )
        return rows, unit_rows(rows) - study.constants.prompt_mean

    return answer


def shipped(study: Study, *, allowed: Ids | None = None, smoothness: float = 1.0) -> Answer:
    """Answer by the settings of `train`; with `allowed`, train on those rows only."""

    def answer(train: Ids, test: Ids) -> tuple[Matrix, Matrix]:
        rows = train if allowed is None else np.intersect1d(train, allowed)
        examples = study.examples
        kind = int(examples.kinds[study.generated][0])
        maps = fit_maps(
            examples[rows],
            prompt_mean=study.constants.prompt_mean,
            main_kind=kind,
            smoothness=smoothness,
        )
        inputs = expanded((examples.features[test] - maps.centre) * maps.scale, maps.basis)
        return np.asarray(inputs @ maps.output_weight + maps.output_bias), np.asarray(
            inputs @ maps.index_weight
        )

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".lite-study"))
    parser.add_argument("--prompts", type=Path, action="append", default=[])
    parser.add_argument("--constants", type=Path)
    args = parser.parse_args()
    if args.constants:
        write_constants(args.prompts, args.constants)
        return
    study = Study(args.pairs, args.cache)
    lines = [*_header(study), *_main_table(study), *_attempt_table(study, ATTEMPTS)]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_constants(prompt_files: list[Path], out: Path) -> None:
    """Write an untrained head: vectors of class names, and the mean of prompts over files."""
    import pyarrow.parquet as pq
    from timm.data.imagenet_info import ImageNetInfo

    means = []
    for path, size in zip(prompt_files, PROMPT_SAMPLES, strict=True):
        prompts = pq.read_table(path, columns=["prompt"]).column(0)
        chosen = np.random.default_rng(0).choice(len(prompts), size, replace=False)
        means.append(text_vectors(prompts.take(chosen).to_pylist()).mean(axis=0))
    names = ImageNetInfo()
    zeros = np.zeros((FEATURE_DIM, TEXT_DIM), np.float32)
    untrained = zeros[:EXPANDED_DIM]
    head = LiteHead(
        class_vectors=text_vectors([names.index_to_description(index) for index in range(CLASSES)]),
        prompt_mean=np.mean(means, axis=0),
        centre=zeros[:, 0],
        scale=zeros[:, 0],
        basis=zeros[:, :BASIS_DIM],
        output_weight=untrained,
        output_bias=zeros[0],
        index_weight=untrained,
        weights_sha256=backbone_digests(),
        training={"pairs": "0"},
    )
    write_head(out, head)


def _header(study: Study) -> list[str]:
    facts = ", ".join(f"{name} {value}" for name, value in machine("torch", "numpy").items())
    return [
        "# The head of `lite`",
        "",
        f"Made by `python benchmarks/lite_head.py`; {facts}.",
        "",
        f"{len(study.rows):,} pairs, {len(np.unique(study.text_ids)):,} different prompts, "
        f"{len(np.unique(study.groups)):,} groups (MiniLM cosine of .7 or more), "
        f"{int(study.generated.sum()):,} generated images and {int((~study.generated).sum()):,} "
        f"photographs, {len(np.unique(study.examples.sources))} sources.",
        "",
        "*Cosine*: mean cosine of the output with MiniLM's vector of the prompt. *R@k*: how "
        "often the right prompt is among the k nearest of 294 in the index space, mean of 20 "
        "seeded draws. Every row is predicted by a model that saw no text of its group; under "
        "*sources left out*, no image of its source either. In brackets: 95 % intervals, "
        "bootstrap over groups.",
    ]


def _main_table(study: Study) -> list[str]:
    zero, mean = np.zeros(TEXT_DIM, np.float32), study.constants.prompt_mean
    permissive = np.flatnonzero([row.licence in PERMISSIVE for row in study.rows])
    models: list[tuple[str, Answer, Matrix]] = [
        ("constant", constant(study), zero),
        ("ConSE alone", conse_alone(study), mean),
        ("plain ridge", plain_ridge(study), mean),
        *(
            (
                f"shipped blend_config, permissive licences only ({len(permissive)} pairs), "
                f"penalties x {factor}",
                shipped(study, allowed=permissive, smoothness=factor),
                mean,
            )
            for factor in (1.0, 4.0, 16.0)
        ),
        ("**shipped blend config**, all pairs", shipped(study), mean),
    ]
    sets: list[tuple[str, list[Fold], Ids]] = [
        ("generated images, five folds", study.folds, np.flatnonzero(study.generated)),
        ("generated images, sources left out", study.source_folds, np.flatnonzero(study.generated)),
        ("photographs, five folds", study.folds, np.flatnonzero(~study.generated)),
        ("all, five folds", study.folds, np.arange(len(study.rows))),
    ]
    lines: list[str] = []
    n = len(study.rows)
    for title, folds, rows in sets:
        lines += [
            "",
            f"## {title[0].upper()}{title[1:]} (n = {len(rows):,})",
            "",
            "| model | cosine | R@1 | R@10 |",
            "| --- | --- | --- | --- |",
        ]
        predictions = [
            across_folds(folds, answer, n, mean=text_mean) for _, answer, text_mean in models
        ]
        for (name, _, _), prediction in zip(models, predictions, strict=True):
            lines.append(_row(name, score(study, prediction, rows)))
            sys.stdout.write(f"{title}: {lines[-1]}\n")
        cosines = [
            float(np.mean(_cosines(study, prediction, rows))) for prediction in predictions[3:-1]
        ]
        best = predictions[3 + int(np.argmax(cosines))]
        lines += ["", _difference(study, predictions[-1], best, rows)]
    return lines


def _row(name: str, scores: Scores) -> str:
    cells = map(str, (scores.cosine, scores.recall_1, scores.recall_10))
    return f"| {name} | {' | '.join(cells)} |"


def _cosines(study: Study, prediction: Prediction, rows: Ids) -> Matrix:
    return row_cosines(unit_rows(prediction.output[rows]), study.examples.prompts[rows])


def _difference(study: Study, full: Prediction, permissive: Prediction, rows: Ids) -> str:
    gap = group_bootstrap(
        _cosines(study, full, rows) - _cosines(study, permissive, rows),
        study.groups[rows],
        rng=np.random.default_rng(0),
    )
    return f"All pairs against the best with permissive licences only, cosine, pair by pair: {gap}."


def _attempt_table(study: Study, attempts: list[Attempt]) -> list[str]:
    lines = [
        "",
        "## Attempts",
        "",
        "Each line is the whole blend config as it stood, with one change; kernel form, features "
        "scaled over all rows (no label is used for that), otherwise as above. Generated images; "
        "*ph.* are photographs with the intercept of photographs.",
        "",
        "| attempt | cosine | cosine, sources left out | R@1 | R@10 | R@10, sources left out | "
        "cosine, ph. | R@10, ph. |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for attempt in attempts:
        figures = run_attempt(study, attempt)
        lines.append(f"| {attempt.name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
    return lines


if __name__ == "__main__":
    main()
