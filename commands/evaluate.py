"""`evaluate`: measure the answers on (image, prompt) pairs, out of fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.ensemble_options import Blend
from imprompt.commands.index_options import IndexOptions, open_index
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.evaluation.report import Report
    from imprompt.evaluation.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What `evaluate` and `fit-weights` measure, and on which pairs."""

    pairs: Annotated[
        Path,
        typer.Option(
            "--pairs",
            help="A Parquet file with the columns `image` (a path relative to it) and `prompt`; "
            "`kind` and `generator` are optional.",
        ),
    ]
    train_pairs: Annotated[
        list[Path] | None,
        typer.Option(
            "--train-pairs",
            help="More pairs for the head of `lite` to learn from; they are not measured. Repeat "
            "the option for several files.",
            show_default=False,
        ),
    ] = None
    unseen: Annotated[
        bool,
        typer.Option(
            "--unseen",
            help="The head of `lite` was not trained on these pairs: use it unchanged instead of "
            "retraining it for each fold.",
        ),
    ] = False
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            help="Number of cross-validation folds; near-duplicate prompts stay in one fold.",
        ),
    ] = 5
    blend: Blend = None

    def run(self, location: IndexOptions, output: Output) -> Study:
        """Ask every member about every pair.

        Raises:
            ImpromptError: the pairs, the index, the blend config or a model cannot be used.
        """
        from imprompt.core.errors import ConfigError
        from imprompt.ensemble.blend_config import DEFAULT, load_blend_config
        from imprompt.evaluation.study import Options, run_study

        if self.unseen and self.train_pairs:
            raise ConfigError(
                "--train-pairs and --unseen exclude each other: with --unseen no head is trained.",
                hint="Leave one of them out.",
            )
        blend_config = load_blend_config(self.blend or DEFAULT)
        with open_index(output, location) as index:
            options = Options(
                refit_head=not self.unseen,
                train_pairs=tuple(self.train_pairs or ()),
                n_folds=self.folds,
                device=index.device,
                offline=index.offline,
                announce=output.note,
                progress=output.progress(),
            )
            return run_study(self.pairs, blend_config, index.version, index.encoder, options)


def evaluate(
    *,
    study_options: StudyOptions,
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")] = Path(
        "out/evaluation.html"
    ),
    gallery: Annotated[
        bool,
        typer.Option(
            "--gallery",
            help="Show the best, median and worst answers on the page, with images and prompts.",
        ),
    ] = False,
    location: IndexOptions,
    output: Output,
) -> None:
    """Measure members, blend and prompts on (image, prompt) pairs, and write a page with plots.

    Every answer is out of fold: the head of `lite`, weights, settings and confidence are fitted
    without the groups that they are measured on, and the true prompts are taken out of the corpus.
    Every figure has a confidence interval. With your own pairs, add `--unseen`.
    """
    from imprompt.core.atomic_files import check_place
    from imprompt.evaluation.plots import check_plots
    from imprompt.evaluation.report_page import write_page

    check_plots()
    check_place(out)
    study = study_options.run(location, output)
    report = write_page(out, study, gallery=gallery)
    if output.json:
        output.line(report)
    else:
        _show(output, report)
    contents = " (with images and prompts of the pairs)" if gallery else ""
    output.note(f"Page: {out}{contents}")
    tell_failed(output, study)


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
        total = len(failed) + len(study.pairs)
        raise PartialFailure(
            f"{len(failed)} of {total} images could not be read; the others were used."
        )


def _show(output: Output, report: Report) -> None:
    output.text(
        f"{report.pairs:,} pairs in {report.groups:,} groups, {report.folds} folds; encoder "
        f"{report.encoder}, {report.corpus_rows:,} prompts; blend config {report.blend_config}"
    )
    for subject, method in report.out_of_fold:
        output.text(f"  {subject}: {method}")
    parts = [part for part in report.slices if part.by in ("all", "kind")]
    columns = [f"{part.name} (n = {part.n:,})" for part in parts]
    rows = [
        [score.answer, *(str(part.scores[position].cosine) for part in parts)]
        for position, score in enumerate(report.slices[0].scores)
    ]
    output.table(grid("Mean cosine with the true prompt", ["answer", *columns], rows))
    show_gains(output, report)
    output.table(
        grid(
            f"Prompts as texts ({report.main_kind})",
            ["prompt", "cosine", "centred", "words recalled", "words", "distinct"],
            [
                [
                    part.answer,
                    str(part.cosine),
                    str(part.centred),
                    "" if part.recall is None else str(part.recall),
                    "" if part.words is None else f"{part.words:.1f}",
                    "" if part.distinct is None else f"{part.distinct:.0%}",
                ]
                for part in report.prompts
            ],
        )
    )
    for recall in report.recall:
        output.text(f"recall@{recall.k}: {recall.share}")
    for planted in report.planted:
        output.text(f"true prompt planted or not, by {planted.sign}: AUROC {planted.auroc:.3f}")
    calibration = report.calibration
    if calibration is None:
        output.text("confidence: not calibrated, too few answers are close or too few are not")
    else:
        output.text(
            f"confidence: calibration error {calibration.ece:.3f}, "
            f"AUROC {calibration.auroc:.3f}; {calibration.base_rate:.1%} of the answers are close"
        )


def show_gains(output: Output, report: Report) -> None:
    """Print which members improve the blend, and which do not."""
    for gain in report.gains:
        output.text(gain.words)
