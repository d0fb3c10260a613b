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
    """An image file and its texts: the prompt, then further captions, if any.

    `kind` tells generated images from photographs, `source` is the collection, `licence` its
    licence, `generator` the program that made the image; each is empty where the file has none.
    """

    image: Path
    texts: tuple[str, ...]
    kind: str = ""
    source: str = ""
    licence: str = ""
    generator: str = ""


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a Parquet file, in order.

    The column `image` is a path relative to the file's folder, or to the folder `images` in it;
    `prompt` is the text; the optional `alt_captions` are further captions, as a list or a JSON
    list. `kind`, `source`, `licence` and `generator` are optional texts; a source
    "COLLECTION:FILE" becomes COLLECTION.

    Raises:
        CorpusError: the file cannot be read, a column is missing, a row has no prompt, or an image
            does not exist.
    """
    columns = _read_columns(path)
    rows = zip(*(columns[name] for name in (*_REQUIRED, *_OPTIONAL)), strict=True)
    pairs = [_pair(path, number, *row) for number, row in enumerate(rows, start=1)]
    if not pairs:
        raise CorpusError(f"{path} holds no pairs.", path=path)
    missing = [pair.image for pair in pairs if not pair.image.is_file()]
    if missing:
        raise CorpusError(
            f"{len(missing)} of {len(pairs)} images do not exist; the first is {missing[0]}.",
            path=path,
            hint=f"Column `image` is relative to {path.parent} or {path.parent / _IMAGE_FOLDER}.",
        )
    return pairs


def _read_columns(path: Path) -> Mapping[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        present = [name for name in (*_REQUIRED, *_OPTIONAL) if name in schema.names]
        absent = " and ".join(sorted({*_REQUIRED} - {*present}))
        if absent:
            raise CorpusError(
                f"{path} lacks the column {absent}; it has {', '.join(schema.names)}.",
                path=path,
                hint="A pairs file has the columns `image` (a path) and `prompt`.",
            )
        table = pq.read_table(path, columns=present)
    except FileNotFoundError as error:
        raise CorpusError(
            f"{path}: there is no such file.", path=path, hint="Name a Parquet file of pairs."
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(
            f"{path} cannot be read as Parquet: {first_line(error)}",
            path=path,
            hint="Name a Parquet file of pairs.",
        ) from error
    columns = {name: table.column(name).to_pylist() for name in present}
    return {name: [None] * table.num_rows for name in _OPTIONAL} | columns


def _pair(
    path: Path, number: int, image: object, prompt: object, captions: object, *facts: object
) -> Pair:
    kind, source, licence, generator = (
        fact.strip() if isinstance(fact, str) else "" for fact in facts
    )
    if not isinstance(image, str) or not isinstance(prompt, str) or not prompt.strip():
        raise CorpusError(
            f"Row {number} of {path} has no image or no prompt.", path=path, line=number
        )
    file = path.parent / image
    return Pair(
        image=file if file.is_file() else path.parent / _IMAGE_FOLDER / image,
        texts=(prompt, *_captions(path, number, captions)),
        kind=kind,
        source=source.split(":")[0],
        licence=licence,
        generator=generator,
    )


def _captions(path: Path, number: int, captions: object) -> list[str]:
    if isinstance(captions, str) and captions.strip():
        try:
            captions = json.loads(captions)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"alt_captions of row {number} of {path} are not JSON.", path=path, line=number
            ) from error
    if captions is None or captions == "":
        return []
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise CorpusError(
            f"alt_captions of row {number} of {path} are not a list of texts.",
            path=path,
            line=number,
        )
    return [caption for caption in captions if caption.strip()]
