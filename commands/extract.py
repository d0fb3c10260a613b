"""`extract`: the prompts that files carry, without any model."""

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
    from imprompt.images.prompts.reading import Found

_STDIN = Path("-")
_COLUMNS = ("image", "how", "prompt", "negative", "tool", "settings", "doubt")


def extract(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…", help="Image files or folders of them; - is standard input."
        ),
    ],
    hidden: Annotated[
        bool,
        typer.Option(
            "--hidden", help="Look into the pixels, too, where tools hide a prompt. Slower."
        ),
    ] = False,
    infotext: Annotated[
        bool,
        typer.Option(
            "--infotext", help="Print prompt and all settings as AUTOMATIC1111 writes them."
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a table, a row for each image."),
    ] = None,
    txt: Annotated[
        bool, typer.Option("--txt", help="Write each prompt into a text file beside its image.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --txt: overwrite text files that are there.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read the prompt that an image file carries (AUTOMATIC1111, ComfyUI and others write it).

    Needs no index and no model.
    """
    from imprompt.core.atomic_files import check_place
    from imprompt.core.errors import ConfigError, ImageRejected, ImpromptError
    from imprompt.images.image_files import find_images, require_images, unread_images
    from imprompt.images.prompts.embedded_prompts import prompt_json

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if force and not txt:
        raise ConfigError("--force is about --txt.", hint="Add --txt, or leave it out.")
    if txt and _STDIN in paths:
        raise ConfigError(
            "--txt writes beside an image file, and standard input is none.",
            hint="Save the image first.",
        )
    if csv is not None:
        check_place(csv)
    unread = unread_images([path for path in paths if path != _STDIN])
    files = find_images(paths) if unread else require_images(paths)
    without = inexact = 0
    rows: list[tuple[str, EmbeddedPrompt | None]] = []
    with output.progress().start("Reading", len(files)) as task:
        for path, found in _found(files, hidden=hidden):
            task.advance(1)
            if isinstance(found, ImpromptError):
                output.fail(str(path), found)
                continue
            without += found is None
            inexact += found is not None and found.how == "carried"
            if csv is not None:
                rows.append((str(path), found))
            if txt and found is not None:
                _write_sidecar(output, path, found, force=force)
            if json:
                output.line(
                    {"image": str(path), **prompt_json(found), **_as_infotext(found, infotext)}
                )
            elif found is not None and not (csv or txt):
                _show(output, path, found, infotext=infotext)
    for path in unread:
        output.fail(
            str(path),
            ImageRejected(path, f"{path.suffix} files are not read here", hint=_remedy(path)),
        )
    if csv is not None:
        _write_csv(csv, rows)
        output.note(f"{len(rows)} rows in {csv}.")
    total = len(files) + len(unread)
    output.note(
        f"{total - without - len(output.failures)} of {total} files carry a prompt{_of_these(inexact)}."
    )
    output.close(total=total, done="were read")


def _found(files: list[Path], *, hidden: bool) -> Iterator[tuple[Path, Found]]:
    from imprompt.images.prompts.reading import read_embedded_prompts

    named = [path for path in files if path != _STDIN]
    if len(named) < len(files):
        yield _STDIN, _from_stdin(hidden=hidden)
    yield from read_embedded_prompts(named, hidden=hidden)


def _from_stdin(*, hidden: bool) -> Found:
    from imprompt.core.errors import ImageRejected
    from imprompt.images.image_opening import DEFAULT_LIMITS
    from imprompt.images.metadata.hidden_texts import read_hidden_prompt
    from imprompt.images.prompts.embedded_prompts import read_embedded_prompt

    content = sys.stdin.buffer.read(DEFAULT_LIMITS.max_bytes + 1)
    try:
        found = read_embedded_prompt(content)
        return read_hidden_prompt(content) if hidden and found is None else found
    except ImageRejected as error:
        return ImageRejected("standard input", str(error.reason), hint=error.hint)


def _write_sidecar(output: Output, path: Path, found: EmbeddedPrompt, *, force: bool) -> None:
    from imprompt.core.atomic_files import atomic_write
    from imprompt.core.errors import ConfigError, ImpromptError

    beside = path.with_suffix(".txt")
    if beside.exists() and not force:
        output.fail(
            str(path), ConfigError(f"{beside} is there already.", hint="--force overwrites it.")
        )
        return
    try:
        with atomic_write(beside) as file:
            file.write(f"{found.prompt}\n".encode())
    except ImpromptError as error:
        output.fail(str(path), error)


def _write_csv(path: Path, rows: list[tuple[str, EmbeddedPrompt | None]]) -> None:
    """A row for each image that could be read; settings as JSON, and no prompt where the file carries none."""
    import csv
    import io
    import json

    from imprompt.core.atomic_files import atomic_write
    from imprompt.core.text import as_utf8
    from imprompt.images.prompts.embedded_prompts import prompt_json

    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    for name, found in rows:
        values = prompt_json(found) | {
            "settings": json.dumps(found.settings, ensure_ascii=False) if found else ""
        }
        writer.writerow({"image": as_utf8(name), **{key: values[key] for key in _COLUMNS[1:]}})
    with atomic_write(path) as file:
        file.write(table.getvalue().encode())


def _as_infotext(found: EmbeddedPrompt | None, wanted: bool) -> dict[str, str | None]:
    from imprompt.images.prompts.infotext import infotext

    return {"infotext": infotext(found) if found else None} if wanted else {}


def _show(output: Output, path: Path, found: EmbeddedPrompt, *, infotext: bool) -> None:
    if infotext:
        from imprompt.images.prompts.infotext import infotext as written

        output.text(f"{written(found)}\n")
        return
    rows = [("prompt", found.prompt), ("negative", found.negative), ("tool", found.tool)]
    rows += [("how", found.how), ("not exact", found.doubt)] if found.doubt else []
    rows += [(name, str(value)) for name, value in found.settings.items()]
    output.table(grid(str(path), ["", ""], [row for row in rows if row[1]]))


def _remedy(path: Path) -> str:
    formats = path.suffix.lower() in (".heic", ".heif", ".hif", ".jxl")
    return (
        "Install the packages: pip install 'imprompt[formats]'"
        if formats
        else "Save it as PNG or JPEG."
    )


def _of_these(inexact: int) -> str:
    return (
        f", {inexact} of them not exactly the one that the picture was made with" if inexact else ""
    )
