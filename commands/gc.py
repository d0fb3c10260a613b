"""`gc`: remove versions that are not in service any more."""

from __future__ import annotations

from typing import Annotated

import typer

from imprompt.commands.options import IndexFolder, Json, Quiet, Verbose
from imprompt.commands.output import Output, size_text


def gc(
    keep: Annotated[
        int,
        typer.Option(
            "--keep", min=0, help="How many older versions to keep beside the current one."
        ),
    ] = 0,
    index: IndexFolder = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remove old versions and builds that were never finished.

    What is in service or being read stays.
    """
    from imprompt.core.settings import settings
    from imprompt.store.publish import collect_garbage

    output = Output(json=json, quiet=quiet, verbose=verbose)
    removed = collect_garbage(settings(index=index).index, keep=keep)
    for name, size in removed:
        if json:
            output.line({"removed": name, "bytes": size})
        else:
            output.text(f"removed {name} ({size_text(size)})")
    output.note(f"{len(removed)} removed, {size_text(sum(size for _, size in removed))} freed.")
