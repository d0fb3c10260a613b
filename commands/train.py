"""`train`: fit the head of the embedded encoder to pairs of images and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.options import Json, Quiet, Verbose
from commands.output import Output, grid


def train(
    pairs: Annotated[
        Path, typer.Option("--pairs", help="A Parquet file with the columns `image` (a path beside it) and `prompt`.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The head to write (safetensors); use it as `--encoder lite:FILE`.")],
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the image head of the `lite` encoder on your own pairs. Image features are computed once and kept."""
    from ensemble.train import train_head

    output = Output(json=json, quiet=quiet, verbose=verbose)
    report = train_head(pairs, out, progress=output.progress())
    if json:
        output.line(report)
    else:
        output.table(grid("", ["", ""], report.rows()))
