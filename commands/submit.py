"""`submit`: answer a folder of images with a submission, or check one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.engine_options import EngineOptions
from imprompt.commands.ensemble_options import EnsembleOptions, tell_left_out
from imprompt.commands.index_options import IndexOptions, LoadedIndex, open_index
from imprompt.commands.options import IgnoreMetadata
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.ensemble.submission.ray_predictions import NamedEnsemble
    from imprompt.ensemble.submission.submission_job import SubmitReport

_SHOWN = 20


def submit(
    *,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="The folder of images.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write: .csv, .parquet or .npz.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option("--sample", help="A sample submission; sets the image ids and their order."),
    ] = None,
    prompts_out: Annotated[
        Path | None,
        typer.Option(
            "--prompts-out", help="Also find the prompts, and write them as CSV to this file."
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", help="Write nothing; compare this submission with --sample instead."
        ),
    ] = None,
    ignore_metadata: IgnoreMetadata = False,
    ensemble: EnsembleOptions,
    location: IndexOptions,
    engine: EngineOptions,
    output: Output,
) -> None:
    """Answer a folder of images with one submission: `imgId_eId,val`, 384 rows per image.

    Ids are the file names without their suffixes. To resume an interrupted run, repeat the command.
    An image that cannot be read gets the corpus mean, is listed, and sets the exit code.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.ensemble.submission.ray_predictions import RayPredictor
    from imprompt.ensemble.submission.submission_job import submit as submit_folder
    from imprompt.ensemble.submission.submission_plan import depends_on

    if check is not None:
        _check(output, check, sample)
        return
    if folder is None or out is None:
        raise ConfigError(
            "submit takes a FOLDER and --out FILE, or --check FILE and --sample SAMPLE."
        )
    device = location.device
    if not engine.local and device != "cpu":
        location = replace(location, device="auto")  # the chosen device is the workers'
    with engine.cluster(device=device) as cluster, open_index(output, location) as index:
        loaded = ensemble.load(index, output)
        depends = depends_on(index.version, loaded)
        predictor = None
        if cluster is not None:
            predictor = RayPredictor(cluster, _named_ensemble(index, loaded, device), depends)
        report = submit_folder(
            folder,
            out,
            ensemble=loaded,
            depends_on=depends,
            sample=sample,
            prompts_out=prompts_out,
            ignore_metadata=ignore_metadata,
            predictor=predictor,
            progress=output.progress(),
        )
    show_submission(output, report)
    tell_left_out(loaded)


def _named_ensemble(index: LoadedIndex, ensemble: Ensemble, device: str) -> NamedEnsemble:
    """Return what other machines need to load the same ensemble over the same version.

    Raises:
        ConfigError: the version is on Milvus.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.ensemble.submission.ray_predictions import NamedEnsemble
    from imprompt.store.index_version import IndexVersion

    if not isinstance(index.version, IndexVersion):
        raise ConfigError(
            "--engine ray reads the index from a folder, not from Milvus.",
            hint="Name the folder with --index.",
        )
    folder = index.version.folder
    return NamedEnsemble(
        folder.parent.parent,
        folder.name,
        ensemble.blend_config,
        degrade=bool(ensemble.left_out),
        device=device,
    )


def _check(output: Output, path: Path, sample: Path | None) -> None:
    from imprompt.core.errors import ConfigError, SubmissionRejected
    from imprompt.ensemble.submission.format_checks import check_submission

    if sample is None:
        raise ConfigError("--check compares with a sample.", hint="Name it with --sample.")
    result = check_submission(path, sample=sample)
    if output.json:
        output.line(result)
    else:
        for problem in result.problems:
            output.text(problem)
    if result.problems:
        raise SubmissionRejected(
            f"{path} does not match {sample}. Kinds of problem: {len(result.problems)}."
        )
    output.note(f"{path}: {result.rows:,} rows of {result.images:,} images, as in {sample}.")


def show_submission(output: Output, report: SubmitReport) -> None:
    """Print what was written, and every image without an answer of its own.

    Raises:
        PartialFailure: an image could not be read, or one that the sample names is missing.
    """
    from imprompt.core.errors import PartialFailure

    if output.json:
        output.line(report)
    else:
        output.text(f"{report.images:,} images in {report.out}, {report.seconds:.1f} s.")
        if report.resumed:
            output.text(f"{report.resumed:,} of them were answered by an earlier run.")
        if report.exact:
            output.text(f"{report.exact:,} of them carried their prompt.")
    unread = [f"{name}: {reason}" for name, reason in report.failed]
    _list(output, "not in the sample, skipped", report.surplus)
    _list(
        output, "in the sample but not in the folder, answered with the corpus mean", report.missing
    )
    _list(output, "unreadable, answered with the corpus mean", unread)
    bad = len(report.missing) + len(report.failed)
    if bad:
        raise PartialFailure(
            f"{bad:,} of {report.images:,} images got the corpus mean instead of an answer."
        )


def _list(output: Output, heading: str, items: Sequence[str]) -> None:
    if items:
        output.note(f"{len(items):,} {heading}:")
        for item in items[:_SHOWN]:
            output.note(f"  {item}")
        if len(items) > _SHOWN:
            output.note(f"  and {len(items) - _SHOWN:,} more (--json lists all)")
