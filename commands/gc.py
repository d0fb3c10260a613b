"""`gc`: remove versions that are no longer in service."""

from __future__ import annotations

from typing import Annotated

import typer

from imprompt.commands.options import IndexFolder
from imprompt.commands.output import Output
from imprompt.core.text import size_text


def gc(
    *,
    keep: Annotated[
        int, typer.Option("--keep", min=0, help="Number of older versions to keep.")
    ] = 0,
    index: IndexFolder = None,
    output: Output,
) -> None:
    """Remove old versions of the index and unfinished builds.

    The current version, and versions that are being read, stay.
    """
    from imprompt.core.errors import NoIndex
    from imprompt.core.settings import settings
    from imprompt.store.publish import collect_garbage

    root = settings(index=index).index
    if not root.is_dir():
        raise NoIndex(
            f"There is no folder {root}.", hint="Name the folder of an index with --index."
        )
    removed = collect_garbage(root, keep=keep)
    for name, size in removed:
        if output.json:
            output.line({"removed": name, "bytes": size})
        else:
            output.text(f"removed {name} ({size_text(size)})")
    output.note(f"{len(removed)} removed, {size_text(sum(size for _, size in removed))} freed.")
