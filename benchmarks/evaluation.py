"""Members, blend and confidence on real pairs over a corpus of real prompts, out of fold.

    python benchmarks/evaluation.py --pairs PAIRS.parquet --train-pairs MORE.parquet --index FOLDER

Writes aggregate figures, no prompt and no image, to benchmarks/results/evaluation.json and
evaluation.md. --cache FOLDER reads and keeps the activations of `lite`'s trunks. --page FILE also
writes the page of `imprompt evaluate` with its gallery; keep that page private.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import ROOT, machine
from imprompt.core.metrics import Estimate
from imprompt.encoders.registry import load_encoder
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.evaluation.nested_cv import BLEND
from imprompt.evaluation.report import Report, estimate
from imprompt.evaluation.report_page import write_page
from imprompt.evaluation.study import Options, Study, fitted_blend_config, make_report, run_study
from imprompt.store.index_version import open_version

RESULTS = ROOT / "benchmarks" / "results"
AIMS = {"ece": 0.05, "auroc of planted or not": 0.8}


class Result(msgspec.Struct, kw_only=True):
    """The figures of a run; `gain_elsewhere` is of the pairs that are not of the main kind."""

    machine: dict[str, str | int]
    command: str
    aims: dict[str, float]
    fitted: BlendConfig
    gain_elsewhere: dict[str, Estimate]
    report: Report


def measure(args: argparse.Namespace) -> Result:
    """Study all members that run without a download."""
    blend_config = BlendConfig(name="default", weights=dict.fromkeys(args.members.split(","), 1.0))
    with open_version(args.index) as version:
        study = run_study(
            args.pairs,
            blend_config,
            version,
            load_encoder("lite"),
            Options(cache=args.cache, announce=print, train_pairs=tuple(args.train_pairs)),
        )
    report = write_page(args.page, study, gallery=True) if args.page else make_report(study)
    return Result(
        machine=machine("onnxruntime", "numpy", "faiss-cpu"),
        command=f"python benchmarks/evaluation.py --members {args.members}",
        aims=AIMS,
        fitted=fitted_blend_config(study, name="default"),
        gain_elsewhere=_gain_elsewhere(study, report),
        report=report,
    )


def _gain_elsewhere(study: Study, report: Report) -> dict[str, Estimate]:
    """Return the blend minus its best member on the pairs that nothing was fitted on."""
    rows = np.flatnonzero(~study.pairs.is_main)
    if not len(rows):
        return {}
    difference = study.scores[BLEND] - study.scores[report.best_member]
    return {
        f"{BLEND} - {report.best_member}": estimate(
            difference, study.pairs, rows, label="elsewhere"
        )
    }


def render(result: Result) -> str:
    """Return the figures as a Markdown page."""
    report = result.report
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    lines = [
        "# Members, blend and confidence",
        "",
        f"Made by `{result.command}` in {report.seconds:.0f} s; {facts}.",
        "",
        f"{report.pairs:,} pairs in {report.groups:,} groups (MiniLM cosine of .7 or more), "
        f"{report.folds} folds of whole groups; encoder {report.encoder}, {report.corpus_rows:,} "
        f"real prompts, {report.removed} of them taken out as true texts of the pairs. Weights, "
        f"settings and confidence are fitted on the {report.main_kind} images alone; photographs "
        "are answered by the same.",
        "",
        *(f"- {what}: {how}" for what, how in report.out_of_fold),
        "",
        "*Cosine*: mean cosine of an answer with MiniLM's vector of the true prompt; in brackets "
        "95 % intervals, bootstrap over groups. The blend config as given has equal weights.",
        "",
        *_score_table(report, ("kind", "all"), "Answers"),
        *_prompt_table(report),
        *_score_table(report, ("generator",), "By generator"),
        *_score_table(report, ("length",), f"By length of the prompt, {report.main_kind}"),
        f"## Who earns its place ({report.main_kind})",
        "",
        *(f"- {gain.words}" for gain in report.gains),
        *(
            f"- On the other pairs, {what}: {_signed(figure)}."
            for what, figure in result.gain_elsewhere.items()
        ),
        "",
        "| fold | weights | k | power | floor |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {number} | {_weights(choice.weights)} | {choice.k} | {choice.power:g} | "
            f"{choice.floor:g} |"
            for number, choice in enumerate(report.fold_choices, 1)
        ),
        "",
        f"Fitted on all: {_weights(result.fitted.weights)}; k {result.fitted.knn.k}, power "
        f"{result.fitted.knn.power:g}, floor {result.fitted.knn.floor:g}.",
        "",
        *_search_and_confidence(result),
    ]
    return "\n".join(lines) + "\n"


def _score_table(report: Report, by: tuple[str, ...], title: str) -> list[str]:
    parts = [part for part in report.slices if part.by in by]
    names = [score.answer for score in report.slices[0].scores]
    if by == ("kind", "all"):
        rows = [
            [name, *(str(part.scores[place].cosine) for part in parts)]
            for place, name in enumerate(names)
        ]
        head = ["answer", *(f"{part.name} (n = {part.n:,})" for part in parts)]
    else:
        head = ["", "pairs", *names]
        rows = [
            [part.name, f"{part.n:,}", *(str(score.cosine) for score in part.scores)]
            for part in parts
        ]
    table = [f"| {' | '.join(row)} |" for row in rows]
    return [f"## {title}", "", f"| {' | '.join(head)} |", "| --- " * len(head) + "|", *table, ""]


def _prompt_table(report: Report) -> list[str]:
    rows = [
        "| {} | {} | {} | {} | {} | {} |".format(
            part.answer,
            part.cosine,
            part.centred,
            part.recall or "",
            "" if part.words is None else f"{part.words:.1f}",
            "" if part.distinct is None else f"{part.distinct:.1%}",
        )
        for part in report.prompts
    ]
    return [
        f"## Prompts as texts ({report.main_kind})",
        "",
        "*Centred*: the cosine without the mean of real prompts, to which every prompt is near. "
        "*Words recalled*: the share of the true prompt's content words in the text.",
        "",
        "| prompt | cosine | centred | words recalled | words | distinct |",
        "| --- " * 6 + "|",
        *rows,
        "",
    ]


def _search_and_confidence(result: Result) -> list[str]:
    report, made = result.report, result.report.calibration
    first = next(recall.share.mean for recall in report.recall if recall.k == 1)
    lines = [
        f"## The search alone ({report.main_kind})",
        "",
        "The true prompt planted alone into the corpus:",
        "",
        *(f"- recall@{recall.k}: {recall.share}" for recall in report.recall),
        *(
            f"- planted or not, by the {planted.sign}: AUROC {planted.auroc:.3f} (aim .8)"
            for planted in report.planted
        ),
        "",
        f"Planting changes the nearest prompt of {first:.1%} of the pictures, so no sign made of "
        f"its score alone can pass {0.5 + first / 2:.3f}: with this encoder and corpus the aim is "
        "out of reach.",
        "",
        f"## Confidence ({report.main_kind})",
        "",
    ]
    if made is None:
        return [*lines, "Not calibrated."]
    right = (
        "" if made.abstained_right is None else f", and true of {made.abstained_right:.1%} of those"
    )
    return [
        *lines,
        f"The printed prompt is close (cosine of {made.close} or more with the true one) for "
        f"{made.base_rate:.1%} of {made.pairs:,} pictures. Calibration error {made.ece:.3f} (aim "
        f".05), AUROC of close or not {made.auroc:.3f}. Below {made.threshold} the answer is "
        f"“nothing in the corpus is close”: said of {made.abstained:.1%} of the pictures{right}; "
        f"{made.close_lost:.1%} of the close answers are among them.",
        "",
        "| answers | mean confidence | share that was close |",
        "| --- | --- | --- |",
        *(f"| {part.n} | {part.confidence:.3f} | {part.close:.3f} |" for part in made.bins),
    ]


def _weights(weights: dict[str, float]) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())


def _signed(figure: Estimate) -> str:
    return f"{figure.mean:+.4f} [{figure.low:+.4f}, {figure.high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--train-pairs", type=Path, action="append", default=[])
    parser.add_argument("--index", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--members", default="vit,knn,interrogator")
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    path = RESULTS / "evaluation.json"
    if args.pairs:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(measure(args)), indent=2) + b"\n")
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    path.with_suffix(".md").write_text(render(result), encoding="utf-8")


if __name__ == "__main__":
    main()
