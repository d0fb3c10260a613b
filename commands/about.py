"""The options of the command line itself."""

from __future__ import annotations

from typing import Annotated

import typer


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    import platform

    from imprompt.indexer.provenance import imprompt_version

    typer.echo(f"imprompt {imprompt_version()}, Python {platform.python_version()}")
    raise typer.Exit


def about(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Find the prompt behind an image: read it from the file, or match the image to prompts."""
