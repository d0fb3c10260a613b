"""The prompts that the images of a folder carry, as a corpus."""

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
from imprompt.indexer.readers.columns import remembered
from imprompt.indexer.rows import CARRIED, NO_PROMPT, Row, StreamedSource, judge

IMAGES = "images:"
UNREADABLE_IMAGE = "unreadable image"


def images_source(folder: Path) -> StreamedSource:
    """Return the prompts that the images below a folder carry; `source_key` is the path inside the folder.

    Prompts that are carried but not exact are left out and counted.

    The fingerprint is one of the prompts found, not of the pixels: headers are read, not whole
    files.

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
        for path, found in read_embedded_prompts(images[start:]):
            key = as_utf8(path.relative_to(folder).as_posix())
            if isinstance(found, ImageRejected):
                yield RejectedRow(name, key, f"{UNREADABLE_IMAGE}: {found.reason}")
            else:
                yield _row(found, source=name, key=key)

    def digest() -> str:
        whole = hashlib.sha256(b"images 2")
        for row in rows(0):
            whole.update(
                repr(
                    (row.source_key, row.reason if isinstance(row, RejectedRow) else row.text)
                ).encode()
            )
        return whole.hexdigest()

    return StreamedSource(name, False, rows, remembered(images, digest), lambda: len(images))


def _row(found: EmbeddedPrompt | None, *, source: str, key: str) -> Row:
    if found is None:
        return RejectedRow(source, key, NO_PROMPT)
    return (
        RejectedRow(source, key, CARRIED)
        if found.doubt
        else judge(found.prompt, source=source, key=key)
    )
