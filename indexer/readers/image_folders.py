"""Corpora of images: the prompts embedded in the images of a folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from imprompt.core.errors import CorpusError, ImageRejected
from imprompt.core.text import as_utf8
from imprompt.core.values import Parameters, RawPrompt, RejectedRow
from imprompt.images.image_files import find_images
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.images.prompts.infotext import with_size
from imprompt.images.prompts.reading import read_embedded_prompts
from imprompt.indexer.readers.columns import cached
from imprompt.indexer.readers.rows import CARRIED, NO_PROMPT, Row, StreamedSource, judge

IMAGES = "images:"
UNREADABLE_IMAGE = "unreadable image"

KEPT_SETTINGS = (
    *("model", "sampler", "scheduler", "steps", "cfg_scale", "size", "clip_skip", "vae"),
)
"""The settings that an index keeps: what may suit another picture, unlike a seed."""

_MOST_NEGATIVE = 10_000
_MOST_SETTING = 200
"""Characters of what is kept; longer ones are files or graphs, not a negative prompt or setting."""

_WHOLE = re.compile(r"(-?\d+)\.0+")


def images_source(folder: Path) -> StreamedSource:
    """Read the prompts of the images below a folder; `source_key` is the path inside it.

    Prompts that are embedded but not exact are rejected and counted. Of what else an image carries,
    the negative prompt and `KEPT_SETTINGS` are read. The fingerprint covers all that is read, not
    the pixels: headers are read, not whole files.

    Raises:
        CorpusError: not a folder.
    """
    if not folder.is_dir():
        raise CorpusError(
            f"{folder} is not a folder.",
            path=folder,
            hint=f"Name a folder with images: {IMAGES}FOLDER.",
        )
    name = as_utf8(folder.resolve().name)
    images = find_images([folder])

    def rows(start: int) -> Iterator[Row]:
        for path, prompt in read_embedded_prompts(images[start:]):
            key = as_utf8(path.relative_to(folder).as_posix())
            if isinstance(prompt, ImageRejected):
                yield RejectedRow(name, key, f"{UNREADABLE_IMAGE}: {prompt.reason}")
            else:
                yield _row(prompt, source=name, key=key)

    def digest() -> str:
        whole = hashlib.sha256(b"images 2")
        for row in rows(0):
            whole.update(repr(_identity(row)).encode())
        return whole.hexdigest()

    return StreamedSource(name, False, rows, cached(images, digest), lambda: len(images))


def _row(prompt: EmbeddedPrompt | None, *, source: str, key: str) -> Row:
    if prompt is None:
        return RejectedRow(source, key, NO_PROMPT)
    if prompt.doubt:
        return RejectedRow(source, key, CARRIED)
    row = judge(prompt.prompt, source=source, key=key)
    return replace(row, parameters=_parameters(prompt)) if isinstance(row, RawPrompt) else row


def _parameters(prompt: EmbeddedPrompt) -> Parameters | None:
    """Return what is kept of a negative prompt and of settings; None where that is nothing."""
    settings = with_size(prompt.settings)
    values = {name: " ".join(settings.get(name, "").split()) for name in KEPT_SETTINGS}
    kept = {
        name: _WHOLE.sub(r"\1", value) if _WHOLE.fullmatch(value) else value
        for name, value in values.items()
        if 0 < len(value) <= _MOST_SETTING
    }
    negative = prompt.negative if len(prompt.negative) <= _MOST_NEGATIVE else ""
    return Parameters("" if negative.isspace() else negative, kept) or None


def _identity(row: Row) -> tuple[object, ...]:
    if isinstance(row, RejectedRow):
        return row.source_key, row.reason
    if row.parameters is None:
        return row.source_key, row.text
    return row.source_key, row.text, row.parameters.negative, [*row.parameters.settings.items()]
