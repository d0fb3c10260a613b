"""`dedupe`: keep one of each group of prompts that mean nearly the same."""

from __future__ import annotations

from typing import Annotated

import typer

from imprompt.commands.options import IndexFolder
from imprompt.commands.output import Output


def dedupe(
    *,
    cosine: Annotated[
        float,
        typer.Option(
            "--cosine",
            help="Minimum cosine similarity (0.5 to 1) at which prompts count as duplicates.",
        ),
    ] = 0.95,
    index: IndexFolder = None,
    output: Output,
) -> None:
    """Drop prompts whose vectors are nearly the same, keeping one of each group.

    The prompt with the most submissions stays, and its count includes the others'. Nothing is
    encoded. The current version answers until the new one is complete; `gc` removes old versions.
    """
    from imprompt.core.settings import settings
    from imprompt.indexer.semantic_duplicates import dedupe_similar

    folder = settings(index=index).index
    report = dedupe_similar(folder, cosine=cosine, progress=output.progress())
    manifest = report.manifest
    if output.json:
        output.line(
            {"dropped": report.duplicates, "rows": manifest.rows, "version": manifest.version}
        )
    elif report.duplicates:
        output.text(
            f"{report.duplicates:,} prompts dropped, {manifest.rows:,} left, in {folder} "
            f"(version {manifest.version})."
        )
    else:
        output.text(
            f"Nothing to drop: no two of {manifest.rows:,} prompts have a cosine of {cosine:g} "
            "or more."
        )
