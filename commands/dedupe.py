"""`fold`: prompts of like meaning into one."""

from __future__ import annotations

from typing import Annotated

import typer

from imprompt.commands.options import IndexFolder, Json, Quiet, Verbose
from imprompt.commands.output import Output


def dedupe(
    cosine: Annotated[
        float,
        typer.Option(
            "--cosine",
            help="From which cosine in the index's space on two prompts are alike, .5 to 1.",
        ),
    ] = 0.95,
    index: IndexFolder = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fold the prompts of the index whose vectors are nearly the same: one of each group stays, and counts the others.

    The one with most submissions stays, then the first. Nothing is encoded, and the index answers
    until the new one is whole. `gc` removes the older one.
    """
    from imprompt.core.settings import settings
    from imprompt.indexer.semantic_duplicates import dedupe_similar

    output = Output(json=json, quiet=quiet, verbose=verbose)
    folder = settings(index=index).index
    report = dedupe_similar(folder, cosine=cosine, progress=output.progress())
    manifest = report.manifest
    if json:
        output.line({"folded": report.duplicates, "rows": manifest.rows, "version": manifest.version})
    elif report.duplicates:
        output.text(
            f"{report.duplicates:,} prompts folded, {manifest.rows:,} left, in {folder} (version {manifest.version})."
        )
    else:
        output.text(
            f"Nothing to fold: {manifest.rows:,} prompts, none with a cosine of {cosine:g} or more to a kept one."
        )
