"""`extract`: read the prompts that files carry, without any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.image_arguments import read_stdin
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
    from imprompt.images.prompts.reading import PromptOrError

_STDIN = Path("-")
_COLUMNS = ("image", "how", "prompt", "negative", "tool", "settings", "doubt")


def extract(
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…",
            help="Image files, folders of them, or patterns (*.png); - reads standard input.",
        ),
    ],
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Also look for prompts hidden in the pixels; slower.")
    ] = False,
    infotext: Annotated[
        bool,
        typer.Option(
            "--infotext", help="Print prompt and settings in the format of AUTOMATIC1111."
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a CSV table with one row per image."),
    ] = None,
    txt: Annotated[
        bool, typer.Option("--txt", help="Write each prompt to a text file next to its image.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --txt: overwrite existing text files.")
    ] = False,
    output: Output,
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

    if force and not txt:
        raise ConfigError("--force requires --txt.", hint="Add --txt, or drop --force.")
    if txt and _STDIN in paths:
        raise ConfigError(
            "--txt cannot write next to standard input.", hint="Save the image to a file first."
        )
    if csv is not None:
        check_place(csv)
    files, unreadable = find_images_and_unreadable(paths)
    if not files and not unreadable:
        require_images(paths)
    counts: Counter[str] = Counter()
    rows: list[tuple[str, EmbeddedPrompt | None]] = []
    printed = output.json or not (csv or txt)
    with output.progress(answering=printed).start("Reading", len(files)) as task:
        for path, prompt in _read(files, hidden=hidden):
            task.advance(1)
            if isinstance(prompt, ImpromptError):
                output.fail(str(path), prompt)
                continue
            if prompt is not None:
                counts[prompt.how] += 1
            if csv is not None:
                rows.append((str(path), prompt))
            if txt and prompt is not None:
                _write_sidecar(output, path, prompt, force=force)
            if printed:
                _print(output, path, prompt, infotext=infotext)
    for path in unreadable:
        output.fail(str(path), unreadable_format(path))
    if csv is not None:
        _write_csv(csv, rows)
        output.note(f"{len(rows)} rows in {csv}.")
    total = len(files) + len(unreadable)
    _note_counts(output, counts, total)
    output.close(total=total, outcome="were read")


def _note_counts(output: Output, counts: Counter[str], total: int) -> None:
    inexact = counts["carried"]
    remark = f", {inexact} of them not exactly the one that made the image" if inexact else ""
    output.note(f"{counts.total()} of {total} files contain a prompt{remark}.")


def _read(files: list[Path], *, hidden: bool) -> Iterator[tuple[Path, PromptOrError]]:
    from imprompt.images.prompts.reading import read_embedded_prompts

    if _STDIN in files:
        yield _STDIN, _read_stdin(hidden=hidden)
    yield from read_embedded_prompts([path for path in files if path != _STDIN], hidden=hidden)


def _read_stdin(*, hidden: bool) -> PromptOrError:
    from imprompt.core.errors import ImageRejected
    from imprompt.images.prompts.reading import prompt_or_error

    prompt = prompt_or_error(read_stdin(), hidden=hidden)
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
    """Write one row per readable image; settings as JSON, empty cells without a prompt."""
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
