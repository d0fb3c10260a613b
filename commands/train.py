"""`train`: fit the head of `lite`, or a whole image tower, to (image, prompt) pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import Device, Offline
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.ensemble.training.vit_training import VitReport

_SHOWN = 20


def train(
    *,
    pairs: Annotated[
        list[Path],
        typer.Option(
            "--pairs",
            help="A Parquet file with the columns `image` (a path relative to it) and `prompt`; "
            "for a head, repeat the option to train on several.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The file to write (safetensors): a head for `--encoder lite:FILE`, or a tower "
            "for a blend config's `vit`.",
        ),
    ],
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="Train a whole image tower: an architecture of timm (vit_base_patch16_224), or a "
            "model of open_clip (ViT-L-14/openai, or a folder).",
            show_default="only the head of lite",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            help="A local file of the backbone's weights.",
            show_default="the published weights",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights; timm only.")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="Passes over the images; in the first quarter only the head is trained.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images per step.", show_default="32")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            min=0,
            help="Learning rate of the last layer below the head.",
            show_default="0.0001",
        ),
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    output: Output,
) -> None:
    """Train on your own pairs: the image head of `lite`, or with --backbone a tower for `vit`.

    To resume an interrupted training of a tower, repeat the command.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.core.settings import settings
    from imprompt.ensemble.training.head_training import train_head

    if backbone is not None:
        from imprompt.ensemble.training.vit_schedule import settings_for
        from imprompt.ensemble.training.vit_training import train_vit

        if len(pairs) > 1:
            raise ConfigError(
                f"--backbone trains on one file of pairs, not on {len(pairs)}.",
                hint="Name one file with --pairs.",
            )
        schedule = settings_for(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
        report = train_vit(
            pairs[0],
            out,
            backbone=backbone,
            weights=weights,
            from_scratch=from_scratch,
            settings=schedule,
            device=device,
            offline=settings(offline=offline).offline,
            announce=output.note,
            progress=output.progress(),
        )
        _show_tower(output, report)
        return
    if weights is not None or from_scratch or epochs or batch_size or learning_rate is not None:
        raise ConfigError(
            "--weights, --from-scratch, --epochs, --batch-size and --learning-rate require "
            "--backbone.",
            hint="Name a tower with --backbone.",
        )
    head = train_head(pairs, out, progress=output.progress())
    if output.json:
        output.line(head)
    else:
        output.table(grid("", ["", ""], head.rows()))


def _show_tower(output: Output, report: VitReport) -> None:
    """Print what was trained.

    Raises:
        PartialFailure: some images could not be read; they are listed.
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
            f"{len(report.skipped):,} of {report.pairs:,} images could not be read; "
            f"{report.out} was trained without them."
        )
