"""`train`: fit the head of the embedded encoder, or a whole image tower, to pairs of images and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import Device, Json, Offline, Quiet, Verbose
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.ensemble.training.vit_training import VitReport

_SHOWN = 20


def train(
    pairs: Annotated[
        Path,
        typer.Option(
            "--pairs",
            help="A Parquet file with the columns `image` (a path beside it) and `prompt`.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The file to write (safetensors): a head for `--encoder lite:FILE`, a tower for a blend config's `vit`.",
        ),
    ],
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="Train a whole image tower: an architecture of timm (vit_base_patch16_224), or a model of open_clip "
            "(ViT-L-14/openai, a folder).",
            show_default="the head of lite",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            help="A local file of the backbone's weights.",
            show_default="the published ones",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin with random weights; timm only.")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="How often each image is seen; the head learns alone for a quarter of them.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images a step.", show_default="32")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            min=0,
            help="Of the last layer below the head.",
            show_default="0.0001",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Train on your own pairs: the image head of the `lite` encoder, or with --backbone a tower for the ensemble's `vit`.

    The training of a tower that was broken off goes on where it stopped when the same command is
    given again.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.core.settings import settings
    from imprompt.ensemble.training.head_training import train_head

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if backbone is not None:
        from imprompt.ensemble.training.vit_schedule import settings_for
        from imprompt.ensemble.training.vit_training import train_vit

        report = train_vit(
            pairs,
            out,
            backbone=backbone,
            weights=weights,
            from_scratch=from_scratch,
            settings=settings_for(
                epochs=epochs, batch_size=batch_size, learning_rate=learning_rate
            ),
            device=device,
            offline=settings(offline=offline).offline,
            announce=output.note,
            progress=output.progress(),
        )
        _show_tower(output, report)
        return
    if weights is not None or from_scratch or epochs or batch_size or learning_rate is not None:
        raise ConfigError(
            "Only a tower has weights, epochs, batches and a learning rate.",
            hint="Name it with --backbone.",
        )
    head = train_head(pairs, out, progress=output.progress())
    if json:
        output.line(head)
    else:
        output.table(grid("", ["", ""], head.rows()))


def _show_tower(output: Output, report: VitReport) -> None:
    """What was trained.

    Raises:
        PartialFailure: some images could not be read; they were listed.
    """
    from imprompt.core.errors import PartialFailure

    if output.json:
        output.line(report)
    else:
        output.table(grid("", ["", ""], report.rows()))
    for image, reason in report.skipped[:_SHOWN]:
        output.note(f"  left out: {image}: {reason}")
    if report.skipped:
        raise PartialFailure(
            f"{len(report.skipped):,} of {report.pairs:,} images could not be read; {report.out} was trained without them."
        )
