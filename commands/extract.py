"""`extract`: read the prompts that files carry, without any model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.images.embedded_prompts import EmbeddedPrompt
    from imprompt.images.reading import Found

_STDIN = Path("-")
_COLUMNS = ("image", "how", "prompt", "negative", "tool", "settings", "doubt")


def extract(
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…", help="Image files, or folders of them; - reads standard input."
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
    """Read the prompt that an image file carries (AUTOMATIC1111, ComfyUI and others write it).

    Needs no index and no model.
    """
    from imprompt.core.atomic_files import check_place
    from imprompt.core.errors import ConfigError, ImageRejected
    from imprompt.images.image_files import find_images, require_images, unread_images

    if force and not txt:
        raise ConfigError("--force requires --txt.", hint="Add --txt, or drop --force.")
    if txt and _STDIN in paths:
        raise ConfigError(
            "--txt cannot write next to standard input.", hint="Save the image to a file first."
        )
    if csv is not None:
        check_place(csv)
    unread = unread_images([path for path in paths if path != _STDIN])
    files = find_images(paths) if unread else require_images(paths)
    counts: Counter[str] = Counter()
    rows: list[tuple[str, EmbeddedPrompt | None]] = []
    for path, prompt in _read(output, files, hidden=hidden):
        if prompt is not None:
            counts[prompt.how] += 1
        if csv is not None:
            rows.append((str(path), prompt))
        if txt and prompt is not None:
            _write_sidecar(output, path, prompt, force=force)
        if output.json:
            output.line(_as_json(path, prompt, infotext=infotext))
        elif prompt is not None and not (csv or txt):
            _show(output, path, prompt, infotext=infotext)
    for path in unread:
        reason = f"{path.suffix} files are not read here"
        output.fail(str(path), ImageRejected(path, reason, hint=_remedy(path)))
    if csv is not None:
        _write_csv(csv, rows)
        output.note(f"{len(rows)} rows in {csv}.")
    total = len(files) + len(unread)
    _note_counts(output, counts, total)
    output.close(total=total, outcome="were read")


def _read(
    output: Output, files: list[Path], *, hidden: bool
) -> Iterator[tuple[Path, EmbeddedPrompt | None]]:
    """Yield each file that can be read with its prompt; the others become failures of `output`."""
    from imprompt.core.errors import ImpromptError

    with output.progress().start("Reading", len(files)) as task:
        for path, result in _results(files, hidden=hidden):
            task.advance(1)
            if isinstance(result, ImpromptError):
                output.fail(str(path), result)
            else:
                yield path, result


def _results(files: list[Path], *, hidden: bool) -> Iterator[tuple[Path, Found]]:
    from imprompt.images.reading import read_embedded_prompts

    named = [path for path in files if path != _STDIN]
    if len(named) < len(files):
        yield _STDIN, _from_stdin(hidden=hidden)
    yield from read_embedded_prompts(named, hidden=hidden)


def _from_stdin(*, hidden: bool) -> Found:
    from imprompt.core.errors import ImageRejected
    from imprompt.images.embedded_prompts import read_embedded_prompt
    from imprompt.images.image_opening import DEFAULT_LIMITS
    from imprompt.images.stealth import read_hidden_prompt

    content = sys.stdin.buffer.read(DEFAULT_LIMITS.max_bytes + 1)
    try:
        prompt = read_embedded_prompt(content)
        return read_hidden_prompt(content) if hidden and prompt is None else prompt
    except ImageRejected as error:
        return ImageRejected("standard input", str(error.reason), hint=error.hint)


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
    from imprompt.images.embedded_prompts import prompt_json

    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    for name, prompt in rows:
        settings = json.dumps(prompt.settings, ensure_ascii=False) if prompt else ""
        values = prompt_json(prompt) | {"settings": settings}
        writer.writerow({"image": as_utf8(name), **{key: values[key] for key in _COLUMNS[1:]}})
    with atomic_write(path) as file:
        file.write(table.getvalue().encode())


def _as_json(path: Path, prompt: EmbeddedPrompt | None, *, infotext: bool) -> dict[str, object]:
    from imprompt.images.embedded_prompts import prompt_json
    from imprompt.images.infotext import infotext as as_infotext

    values: dict[str, object] = {"image": str(path), **prompt_json(prompt)}
    if infotext:
        values["infotext"] = as_infotext(prompt) if prompt else None
    return values


def _show(output: Output, path: Path, prompt: EmbeddedPrompt, *, infotext: bool) -> None:
    if infotext:
        from imprompt.images.infotext import infotext as as_infotext

        output.text(f"{as_infotext(prompt)}\n")
        return
    rows = [("prompt", prompt.prompt), ("negative", prompt.negative), ("tool", prompt.tool)]
    if prompt.doubt:
        rows += [("how", prompt.how), ("not exact", prompt.doubt)]
    rows += [(name, str(value)) for name, value in prompt.settings.items()]
    output.table(grid(str(path), ["", ""], [row for row in rows if row[1]]))


def _note_counts(output: Output, counts: Counter[str], total: int) -> None:
    inexact = counts["carried"]
    remark = f", {inexact} of them not exactly the one that made the image" if inexact else ""
    output.note(f"{counts.total()} of {total} files carry a prompt{remark}.")


def _remedy(path: Path) -> str:
    if path.suffix.lower() in (".heic", ".heif", ".hif", ".jxl"):
        return "Install the packages: pip install 'imprompt[formats]'"
    return "Save it as PNG or JPEG."
