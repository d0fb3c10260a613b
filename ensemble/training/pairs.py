"""Pairs of an image and its text, read from a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprompt.core.errors import CorpusError, first_line

_REQUIRED = ("image", "prompt")
_OPTIONAL = ("alt_captions", "kind", "source", "licence", "generator")
_IMAGE_FOLDER = "images"


@dataclass(frozen=True, slots=True)
class Pair:
    """An image file and what it shows: the prompt first, then further captions, if there are any.

    `kind` tells generated images from photographs, `source` is the collection it belongs to,
    `licence` what that one states, `generator` the program that made it; each is empty where the
    file does not say.
    """

    image: Path
    texts: tuple[str, ...]
    kind: str = ""
    source: str = ""
    licence: str = ""
    generator: str = ""


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a Parquet file, in its order.

    Column `image` is a path relative to the file's folder, or to the folder `images` in it;
    `prompt` is the text; `alt_captions`, where there is one, holds further captions, as a list or
    as a JSON list. `kind`, `source`, `licence` and `generator` are optional texts; of a source
    "COLLECTION:FILE" the collection counts.

    Raises:
        CorpusError: the file cannot be read, a column is missing, a row has no prompt, or an image
            is not there.
    """
    columns = _read_columns(path)
    rows = zip(*(columns[name] for name in (*_REQUIRED, *_OPTIONAL)), strict=True)
    pairs = [_pair(path, number, *row) for number, row in enumerate(rows, start=1)]
    if not pairs:
        raise CorpusError(f"{path} holds no pair.", path=path)
    missing = [pair.image for pair in pairs if not pair.image.is_file()]
    if missing:
        raise CorpusError(
            f"{len(missing)} of {len(pairs)} images are not there, the first is {missing[0]}.",
            path=path,
            hint=f"Column `image` is read relative to {path.parent} and to {path.parent / _IMAGE_FOLDER}.",
        )
    return pairs


def _read_columns(path: Path) -> Mapping[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        present = [name for name in (*_REQUIRED, *_OPTIONAL) if name in schema.names]
        absent = sorted({*_REQUIRED} - {*present})
        if absent:
            raise CorpusError(
                f"{path} lacks the column {' and '.join(absent)}; it has {', '.join(schema.names)}.",
                path=path,
                hint="A pairs file has the columns `image` (a path) and `prompt`.",
            )
        table = pq.read_table(path, columns=present)
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise CorpusError(
            f"{path} cannot be read as Parquet: {reason}",
            path=path,
            hint="Name a Parquet file of pairs.",
        ) from error
    columns = {name: table.column(name).to_pylist() for name in present}
    return {name: [None] * table.num_rows for name in _OPTIONAL} | columns


def _pair(
    path: Path, number: int, image: object, prompt: object, captions: object, *words: object
) -> Pair:
    kind, source, licence, generator = words
    if not isinstance(image, str) or not isinstance(prompt, str) or not prompt.strip():
        raise CorpusError(
            f"row {number} of {path} has no image or no prompt.", path=path, line=number
        )
    beside = path.parent / image
    found = beside if beside.is_file() else path.parent / _IMAGE_FOLDER / image
    return Pair(
        image=found,
        texts=(prompt, *_captions(path, number, captions)),
        kind=_word(kind),
        source=_word(source).split(":")[0],
        licence=_word(licence),
        generator=_word(generator),
    )


def _word(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _captions(path: Path, number: int, captions: object) -> list[str]:
    if isinstance(captions, str) and captions.strip():
        try:
            captions = json.loads(captions)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"alt_captions of row {number} of {path} are no JSON list.", path=path, line=number
            ) from error
    if captions is None or captions == "":
        return []
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise CorpusError(
            f"alt_captions of row {number} of {path} are no list of texts.", path=path, line=number
        )
    return [caption for caption in captions if caption.strip()]
