"""`extract`: the prompts in image files, without any model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import Json, Quiet, Verbose
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
    from imprompt.images.prompts.reading import PromptOrError

_STDIN = Path("-")
_COLUMNS = ("image", "how", "prompt", "negative", "tool", "settings", "doubt")


def extract(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="Image files or folders; - is standard input."),
    ],
    hidden: Annotated[
        bool,
        typer.Option("--hidden", help="Also search the pixels, where some tools hide a prompt."),
    ] = False,
    infotext: Annotated[
        bool,
        typer.Option(
            "--infotext", help="Print prompt and all settings as AUTOMATIC1111 writes them."
        ),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a table, one row per image.")
    ] = None,
    txt: Annotated[
        bool, typer.Option("--txt", help="Write each prompt to a text file next to its image.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --txt: overwrite existing text files.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read the prompt in an image file (AUTOMATIC1111, ComfyUI and others write it).

    Needs no index and no model.
    """
    from imprompt.core.atomic_files import check_place
    from imprompt.core.errors import ConfigError, ImpromptError
    from imprompt.images.image_files import (
        find_images_and_unreadable,
        require_images,
        unreadable_format,
    )

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if force and not txt:
        raise ConfigError("--force only applies to --txt.", hint="Add --txt, or omit it.")
    if txt and _STDIN in paths:
        raise ConfigError(
            "--txt writes next to an image file, and standard input is not a file.",
            hint="Save the image first.",
        )
    if csv is not None:
        check_place(csv)
    files, unreadable = find_images_and_unreadable(paths)
    if not files and not unreadable:
        require_images(paths)
    rows: list[tuple[str, EmbeddedPrompt | None]] = []
    with output.progress().start("Reading", len(files)) as task:
        for path, prompt in _read(files, hidden=hidden):
            task.advance(1)
            if isinstance(prompt, ImpromptError):
                output.fail(str(path), prompt)
                continue
            rows.append((str(path), prompt))
            if txt and prompt is not None:
                _write_sidecar(output, path, prompt, force=force)
            if json or not (csv or txt):
                _print(output, path, prompt, infotext=infotext)
    for path in unreadable:
        output.fail(str(path), unreadable_format(path))
    if csv is not None:
        _write_csv(csv, rows)
        output.note(f"{len(rows)} rows in {csv}.")
    total = len(files) + len(unreadable)
    _note_counts(output, [prompt for _, prompt in rows], total)
    output.close(total=total, done="were read")


def _note_counts(output: Output, prompts: list[EmbeddedPrompt | None], total: int) -> None:
    n_prompts = total - prompts.count(None) - len(output.failures)
    n_doubtful = sum(prompt is not None and prompt.how == "carried" for prompt in prompts)
    doubtful = f", {n_doubtful} of them not exactly the image's prompt" if n_doubtful else ""
    output.note(f"{n_prompts} of {total} files contain a prompt{doubtful}.")


def _read(files: list[Path], *, hidden: bool) -> Iterator[tuple[Path, PromptOrError]]:
    from imprompt.images.prompts.reading import read_embedded_prompts

    if _STDIN in files:
        yield _STDIN, _read_stdin(hidden=hidden)
    yield from read_embedded_prompts([path for path in files if path != _STDIN], hidden=hidden)


def _read_stdin(*, hidden: bool) -> PromptOrError:
    from imprompt.core.errors import ImageRejected
    from imprompt.images.image_opening import DEFAULT_LIMITS
    from imprompt.images.prompts.reading import prompt_or_error

    content = sys.stdin.buffer.read(DEFAULT_LIMITS.max_bytes + 1)
    prompt = prompt_or_error(content, hidden=hidden)
    if isinstance(prompt, ImageRejected):
        return ImageRejected("standard input", prompt.reason, hint=prompt.hint)
    return prompt


def _write_sidecar(output: Output, path: Path, prompt: EmbeddedPrompt, *, force: bool) -> None:
    from imprompt.core.atomic_files import atomic_write
    from imprompt.core.errors import ConfigError, ImpromptError

    sidecar = path.with_suffix(".txt")
    if sidecar.exists() and not force:
        error = ConfigError(f"{sidecar} already exists.", hint="--force overwrites it.")
        output.fail(str(path), error)
        return
    try:
        with atomic_write(sidecar) as file:
            file.write(f"{prompt.prompt}\n".encode())
    except ImpromptError as error:
        output.fail(str(path), error)


def _write_csv(path: Path, rows: list[tuple[str, EmbeddedPrompt | None]]) -> None:
    """Write a row for each image that was read, with settings as JSON, also without a prompt."""
    import csv
    import io
    import json

    from imprompt.core.atomic_files import atomic_write
    from imprompt.core.text import as_utf8
    from imprompt.images.prompts.embedded_prompts import prompt_json

    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    for name, prompt in rows:
        settings = json.dumps(prompt.settings, ensure_ascii=False) if prompt else ""
        values = prompt_json(prompt) | {"image": as_utf8(name), "settings": settings}
        writer.writerow({column: values[column] for column in _COLUMNS})
    with atomic_write(path) as file:
        file.write(table.getvalue().encode())


def _print(output: Output, path: Path, prompt: EmbeddedPrompt | None, *, infotext: bool) -> None:
    from imprompt.images.prompts.embedded_prompts import prompt_json
    from imprompt.images.prompts.infotext import infotext as as_infotext

    if output.json:
        line = {"image": str(path), **prompt_json(prompt)}
        if infotext:
            line["infotext"] = as_infotext(prompt) if prompt else None
        output.line(line)
    elif prompt is not None and infotext:
        output.text(f"{as_infotext(prompt)}\n")
    elif prompt is not None:
        rows = [("prompt", prompt.prompt), ("negative", prompt.negative), ("tool", prompt.tool)]
        if prompt.doubt:
            rows += [("how", prompt.how), ("not exact", prompt.doubt)]
        rows += prompt.settings.items()
        output.table(grid(str(path), ["", ""], [row for row in rows if row[1]]))
