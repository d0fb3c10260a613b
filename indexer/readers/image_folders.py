"""Corpora of images: the prompts embedded in the images of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from imprompt.core.errors import CorpusError, ImageRejected
from imprompt.core.text import as_utf8
from imprompt.core.values import RejectedRow
from imprompt.images.image_files import find_images
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.images.prompts.reading import read_embedded_prompts
from imprompt.indexer.readers.columns import cached_digest
from imprompt.indexer.readers.rows import CARRIED, NO_PROMPT, Row, StreamedSource, judge

IMAGES = "images:"
UNREADABLE_IMAGE = "unreadable image"


def images_source(folder: Path) -> StreamedSource:
    """Read the prompts of the images below a folder; `source_key` is the path inside it.

    Prompts that are embedded but not exact are rejected and counted. The fingerprint covers the
    prompts, not the pixels: headers are read, not whole files.

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
            text = row.reason if isinstance(row, RejectedRow) else row.text
            whole.update(repr((row.source_key, text)).encode())
        return whole.hexdigest()

    return StreamedSource(name, False, rows, cached_digest(images, digest), lambda: len(images))


def _row(prompt: EmbeddedPrompt | None, *, source: str, key: str) -> Row:
    if prompt is None:
        return RejectedRow(source, key, NO_PROMPT)
    if prompt.doubt:
        return RejectedRow(source, key, CARRIED)
    return judge(prompt.prompt, source=source, key=key)
