"""`extract`: the prompts that files carry, without any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.options import Json, Quiet, Verbose
from commands.output import Output, grid


def extract(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Image files or folders of them.")],
    hidden: Annotated[bool, typer.Option("--hidden", help="Look into the pixels, too, where tools hide a prompt. Slower.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read the prompt that an image file carries (AUTOMATIC1111, ComfyUI and others write it). Needs no index and no model."""
    from core.errors import ImpromptError
    from images.embedded import prompt_json
    from images.files import require_images
    from images.reading import read_embedded_prompts

    output = Output(json=json, quiet=quiet, verbose=verbose)
    files = require_images(paths)
    without = inexact = 0
    with output.progress().start("Reading", len(files)) as task:
        for path, found in read_embedded_prompts(files, hidden=hidden):
            task.advance(1)
            if isinstance(found, ImpromptError):
                output.fail(str(path), found)
                continue
            without += found is None
            inexact += found is not None and found.how == "carried"
            if json:
                output.line({"image": str(path), **prompt_json(found)})
            elif found is not None:
                rows = [("prompt", found.prompt), ("negative", found.negative), ("tool", found.tool)]
                rows += [("how", found.how), ("not exact", found.doubt)] if found.doubt else []
                rows += [(name, str(value)) for name, value in found.settings.items()]
                output.table(grid(str(path), ["", ""], [row for row in rows if row[1]]))
    output.note(f"{len(files) - without - len(output.failures)} of {len(files)} files carry a prompt{_of_these(inexact)}.")
    output.close(total=len(files))


def _of_these(inexact: int) -> str:
    return f", {inexact} of them not exactly the one that the picture was made with" if inexact else ""
