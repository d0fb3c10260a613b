"""`embed`: vectors of images or texts, as a file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.options import Device, EncoderName, IndexFolder, Json, Offline, Quiet, Verbose
from commands.output import Output


class Space(StrEnum):
    """Which space the vectors lie in."""

    OUTPUT = "output"
    INDEX = "index"


def embed(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH…", help="With --images: files or folders.")] = None,
    images: Annotated[bool, typer.Option("--images", help="The paths are images.")] = False,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", help="A text file, one a line, or a CSV, JSONL or Parquet file with a `prompt` column."),
    ] = None,
    space: Annotated[
        Space,
        typer.Option("--space", help="`output`: all-MiniLM-L6-v2, 384-d, what the competition scores; `index`: the index's own."),
    ] = Space.OUTPUT,
    out: Annotated[
        Path, typer.Option("--out", help="The .npy file to write: (n, dim) float32 unit rows, in the order given.")
    ] = ...,  # type: ignore[assignment]  # typer's word for "required"
    index: IndexFolder = None,
    encoder: EncoderName = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Write the embeddings of images or texts to a NumPy file.

    An image that cannot be read gets a row of zeros, so that the rows stay in step; it is listed, and the exit code tells.
    """

    from core.errors import ConfigError

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if images == (texts is not None) or bool(paths) != images:
        raise ConfigError("embed takes either --images PATH… or --texts FILE.", hint="Name exactly one of them.")
