"""`submit`: a folder of images to a submission of the competition, or a submission checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.blend_options import (
    Blend,
    Degrade,
    Phrases,
    load_ensemble_for,
    named_ensemble,
    tell_left_out,
)
from imprompt.commands.engine_options import LOCAL, ActorCpus, EngineName, ray_cluster_of
from imprompt.commands.index_options import open_index
from imprompt.commands.options import Device, IndexOption, Json, Offline, Quiet, Verbose
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.ensemble.submission.submission_job import SubmitReport

_SHOWN = 20


def submit(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="The folder of the images.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write: .csv, .parquet or .npz.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample", help="A sample submission; its ids and their order are those of the result."
        ),
    ] = None,
    prompts_out: Annotated[
        Path | None, typer.Option("--prompts-out", help="A CSV file for the texts of the answers.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            help="Write nothing: compare this submission with --sample and list its problems.",
        ),
    ] = None,
    ignore_metadata: Annotated[
        bool,
        typer.Option("--ignore-metadata", help="Estimate also where a file carries its prompt."),
    ] = False,
    blend: Blend = None,
    phrases: Phrases = None,
    degrade: Degrade = False,
    index: IndexOption = None,
    device: Device = "auto",
    engine: EngineName = LOCAL,
    actor_cpus: ActorCpus = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Answer a whole folder of images with one submission: `imgId_eId,val`, 384 rows an image, ids are the files' stems.

    A run that was broken off goes on where it stopped when the same command is given again. An
    image that cannot be read gets the mean of the corpus, is listed, and the exit code tells.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.ensemble.submission.ray_predictions import RayPredictor
    from imprompt.ensemble.submission.submission_job import submit as submit_folder
    from imprompt.ensemble.submission.submission_plan import depends_on

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if check is not None:
        _check(output, check, sample)
        return
    if folder is None or out is None:
        raise ConfigError(
            "submit takes a FOLDER and --out FILE, or --check FILE and --sample SAMPLE."
        )
    here = (
        device if engine == LOCAL or device == "cpu" else "auto"
    )  # on a cluster the device is the workers'
    with (
        ray_cluster_of(engine, device=device, actor_cpus=actor_cpus) as cluster,
        open_index(output, index=index, device=here, offline=offline) as opened,
    ):
        ensemble = load_ensemble_for(blend, opened, phrases=phrases, degrade=degrade, output=output)
        depends = depends_on(opened.version, ensemble)
        report = submit_folder(
            folder,
            out,
            ensemble=ensemble,
            depends_on=depends,
            sample=sample,
            prompts_out=prompts_out,
            ignore_metadata=ignore_metadata,
            predictor=None
            if cluster is None
            else RayPredictor(cluster, named_ensemble(opened, ensemble, device=device), depends),
            progress=output.progress(),
        )
    _show(output, report)
    tell_left_out(ensemble)


def _check(output: Output, path: Path, sample: Path | None) -> None:
    from imprompt.core.errors import ConfigError, SubmissionRejected
    from imprompt.ensemble.submission.format_checks import check_submission

    if sample is None:
        raise ConfigError("--check compares with a sample.", hint="Name it with --sample.")
    checked = check_submission(path, sample=sample)
    if output.json:
        output.line(checked)
    else:
        for problem in checked.problems:
            output.text(problem)
    if checked.problems:
        raise SubmissionRejected(
            f"{path} is not what {sample} asks for: {len(checked.problems)} kind(s) of problem."
        )
    output.note(f"{path}: {checked.rows:,} rows of {checked.images:,} images, as in {sample}.")


def _show(output: Output, report: SubmitReport) -> None:
    """What was written, what was not as it should be.

    Raises:
        PartialFailure: an image could not be read, or the sample names one that is not there.
    """
    from imprompt.core.errors import PartialFailure

    if output.json:
        output.line(report)
    else:
        output.text(f"{report.images:,} images in {report.out}, {report.seconds:.1f} s.")
        if report.resumed:
            output.text(f"{report.resumed:,} of them were done by an earlier run.")
        if report.exact:
            output.text(f"{report.exact:,} of them carried their prompt.")
    _list(output, "in the folder and not in the sample, left out", report.surplus)
    _list(output, "in the sample and not in the folder, given the corpus's mean", report.missing)
    _list(
        output,
        "not readable, given the corpus's mean",
        [f"{name}: {reason}" for name, reason in report.failed],
    )
    bad = len(report.missing) + len(report.failed)
    if bad:
        raise PartialFailure(
            f"{bad:,} of {report.images:,} images got the corpus's mean instead of an answer."
        )


def _list(output: Output, what: str, items: list[str] | tuple[str, ...]) -> None:
    if items:
        output.note(f"{len(items):,} {what}:")
        for item in items[:_SHOWN]:
            output.note(f"  {item}")
        if len(items) > _SHOWN:
            output.note(f"  and {len(items) - _SHOWN:,} more (all of them with --json)")
