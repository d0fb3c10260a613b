"""`evaluate`: how good the answers are, measured on pairs, out of fold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.blend_options import Blend
from imprompt.commands.index_options import open_index
from imprompt.commands.options import Device, IndexOption, Json, Offline, Quiet, Verbose
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.evaluation.report import Report, Slice
    from imprompt.evaluation.study import Study

PairsFile = Annotated[
    Path,
    typer.Option(
        "--pairs",
        help="A Parquet file with the columns `image` (a path beside it) and `prompt`; `kind` and `generator` are optional.",
    ),
]
Unseen = Annotated[
    bool,
    typer.Option(
        "--unseen",
        help="The head of `lite` was not trained on these pairs: take it as it is, instead of training it again without each fold.",
    ),
]
Folds = Annotated[
    int,
    typer.Option("--folds", help="Into how many folds of whole groups of near-duplicate prompts."),
]


def evaluate(
    pairs: PairsFile,
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")] = Path(
        "out/evaluation.html"
    ),
    gallery: Annotated[
        bool,
        typer.Option(
            "--gallery",
            help="Show the best, median and worst answers on the page, with pictures and prompts.",
        ),
    ] = False,
    unseen: Unseen = False,
    folds: Folds = 5,
    blend: Blend = None,
    index: IndexOption = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Measure members and blend on pairs of images and prompts, with intervals, and write a page with plots.

    Every answer is out of fold: the head of `lite`, weights, settings and confidence are fitted
    again without the groups that they are measured on, and the true prompts are taken out of the
    corpus. With pairs of your own add `--unseen`.
    """
    from imprompt.core.atomic_files import check_place
    from imprompt.evaluation.plots import check_plots
    from imprompt.evaluation.report_page import write_page

    output = Output(json=json, quiet=quiet, verbose=verbose)
    check_plots()
    check_place(out)
    study = study_pairs(
        pairs,
        blend,
        unseen=unseen,
        folds=folds,
        index=index,
        device=device,
        offline=offline,
        output=output,
    )
    report = write_page(out, study, gallery=gallery)
    if json:
        output.line(report)
    else:
        _show(output, report)
    output.note(
        f"The page: {out}" + (" (with pictures and prompts of the pairs)" if gallery else "")
    )
    tell_failed(output, study)


def study_pairs(
    pairs: Path,
    blend: str | None,
    *,
    unseen: bool,
    folds: int,
    index: str | None,
    device: str,
    offline: bool,
    output: Output,
) -> Study:
    """The study that `evaluate` and `fit-weights` share."""
    from imprompt.ensemble.blend_config import DEFAULT, load_blend_config
    from imprompt.evaluation.study import Options, run_study

    blend_config = load_blend_config(blend or DEFAULT)
    with open_index(output, index=index, device=device, offline=offline) as opened:
        options = Options(
            refit_head=not unseen,
            n_folds=folds,
            device=device,
            offline=opened.offline,
            announce=output.note,
            progress=output.progress(),
        )
        return run_study(pairs, blend_config, opened.version, opened.pair, options)


def tell_failed(output: Output, study: Study) -> None:
    """List the images that could not be read.

    Raises:
        PartialFailure: there are any.
    """
    from imprompt.core.errors import PartialFailure

    failed = study.pairs.failed
    for _, error in failed:
        output.note(str(error))
    if failed:
        raise PartialFailure(
            f"{len(failed)} of {len(failed) + len(study.pairs)} images could not be read; the others were used."
        )


def _show(output: Output, report: Report) -> None:
    output.text(
        f"{report.pairs:,} pairs in {report.groups:,} groups, {report.folds} folds; encoder {report.encoder}, "
        f"{report.corpus_rows:,} prompts; blend config {report.blend_config}"
    )
    for what, how in report.out_of_fold:
        output.text(f"  {what}: {how}")
    parts = [part for part in report.slices if part.by in ("all", "kind")]
    columns = [f"{part.name} (n = {part.n:,})" for part in parts]
    rows = [
        [score.answer, *(_interval(part, position) for part in parts)]
        for position, score in enumerate(report.slices[0].scores)
    ]
    output.table(grid("Mean cosine with the true prompt", ["answer", *columns], rows))
    show_gains(output, report)
    for recall in report.recall:
        found = recall.share
        output.text(f"recall@{recall.k}: {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
    for planted in report.planted:
        output.text(f"true prompt planted or not, by {planted.sign}: AUROC {planted.auroc:.3f}")
    made = report.calibration
    if made is None:
        output.text("confidence: not calibrated, too few answers are close or too few are not")
    else:
        output.text(
            f"confidence: calibration error {made.ece:.3f}, AUROC {made.auroc:.3f}; {made.base_rate:.1%} of the answers are close"
        )


def show_gains(output: Output, report: Report) -> None:
    """In plain words, who earns its place."""
    for gain in report.gains:
        output.text(gain.words)


def _interval(part: Slice, position: int) -> str:
    found = part.scores[position].cosine
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
