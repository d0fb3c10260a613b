"""`embed`: write vectors of images or texts to a file."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.cleaning_options import PromptColumn
from imprompt.commands.index_options import IndexOptions
from imprompt.commands.options import EncoderName
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder
    from imprompt.core.settings import IndexPlace
    from imprompt.core.values import EncoderSpec, RawPrompt, RejectedRow
    from imprompt.retriever.query_embedding import EmbeddedItems

_IMAGES_AT_ONCE = 32
_TEXTS_AT_ONCE = 4096


class EmbedSpace(StrEnum):
    """Which space the vectors lie in."""

    OUTPUT = "output"
    INDEX = "index"


def embed(
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The .npy file to write: (n, dim) float32 unit rows, in input order."
        ),
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH…", help="With --images: files, folders or patterns."),
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="Embed the images at PATH….")] = False,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts",
            metavar="FILE",
            help="Embed the texts of this file: one per line, or a table (docs/corpora.md).",
        ),
    ] = None,
    column: PromptColumn = None,
    space: Annotated[
        EmbedSpace,
        typer.Option(
            "--space",
            help="`output`: all-MiniLM-L6-v2 (384-d), which the competition scores; `index`: the "
            "space of the index.",
        ),
    ] = EmbedSpace.OUTPUT,
    location: IndexOptions,
    encoder: EncoderName = None,
    output: Output,
) -> None:
    """Write the embeddings of images or texts to a NumPy file.

    In the output space, an image's vector is the estimate of the `lite` encoder. An item that
    cannot be read gets a row of zeros, is listed, and sets the exit code.
    """
    import numpy as np

    from imprompt.core.atomic_files import atomic_write
    from imprompt.core.errors import ConfigError
    from imprompt.encoders.registry import load_encoder, load_index_encoder

    if images == (texts is not None) or bool(paths) != images:
        raise ConfigError(
            "embed takes either --images PATH… or --texts FILE.", hint="Name exactly one of them."
        )
    run = location.settings()
    device, offline, note = location.device, run.offline, output.note
    if name := "lite" if space is EmbedSpace.OUTPUT else encoder:
        dual = load_encoder(name, device=device, offline=offline, announce=note)
    else:
        spec = _encoder_of_index(run.place)
        dual = load_index_encoder(spec, device=device, offline=offline, announce=note)
    if texts:
        embedded, labels = _embed_texts(texts, column, dual, space, output)
    else:
        embedded, labels = _embed_images(paths or [], dual, space, output)
    with atomic_write(out) as file:
        np.save(file, embedded.vectors)
    for row, error in embedded.failed:
        output.fail(labels[row], error)
    rows, dim = len(labels), embedded.vectors.shape[1]
    if output.json:
        shape = {"out": str(out), "rows": rows, "dim": dim}
        output.line({**shape, "space": space.value, "items": labels})
    else:
        output.text(f"{rows} rows of {dim} in {out}.")
    output.close(total=rows)


def _encoder_of_index(place: IndexPlace) -> EncoderSpec:
    from imprompt.store.open_index import open_place

    with open_place(place) as version:
        return version.manifest.encoders[0]


def _embed_images(
    paths: list[Path], encoder: DualEncoder, space: EmbedSpace, output: Output
) -> tuple[EmbeddedItems, list[str]]:
    from imprompt.encoders.lite import LiteImages
    from imprompt.images.decode import ENOUGH_PX, open_image
    from imprompt.images.image_files import find_images
    from imprompt.retriever.query_embedding import embed_rows

    files = find_images(paths)
    tower = encoder.images
    encode = tower.encode
    if space is EmbedSpace.OUTPUT and isinstance(tower, LiteImages):
        encode = tower.output
    embedded = embed_rows(
        files,
        load=partial(open_image, enough_px=ENOUGH_PX),
        encode=encode,
        dim=encoder.spec.dim,
        batch=_IMAGES_AT_ONCE,
        progress=output.progress(),
    )
    return embedded, [str(path) for path in files]


def _embed_texts(
    file: Path, column: str | None, encoder: DualEncoder, space: EmbedSpace, output: Output
) -> tuple[EmbeddedItems, list[str]]:
    from imprompt.encoders.registry import load_minilm
    from imprompt.indexer.readers.compression import table_suffix
    from imprompt.indexer.readers.sources import parse_corpus
    from imprompt.indexer.readers.table_files import TABLES
    from imprompt.indexer.readers.text_lines import text_source
    from imprompt.retriever.query_embedding import embed_rows

    is_table = table_suffix(file) in TABLES
    source = parse_corpus(str(file), column=column) if is_table else text_source(file)
    rows = list(source.open_rows(0))
    tower = load_minilm() if space is EmbedSpace.OUTPUT else encoder.texts
    embedded = embed_rows(
        rows,
        load=_text,
        encode=tower.encode,
        dim=encoder.spec.dim,
        batch=_TEXTS_AT_ONCE,
        progress=output.progress(),
    )
    return embedded, [f"{row.source} {row.source_key}" for row in rows]


def _text(row: RawPrompt | RejectedRow) -> str:
    from imprompt.core.errors import CorpusError
    from imprompt.core.values import RejectedRow
    from imprompt.indexer.readers.rows import EMPTY

    if isinstance(row, RejectedRow):
        if row.reason == EMPTY:
            return ""  # an empty line has an embedding too
        raise CorpusError(f"{row.source} {row.source_key}: {row.reason}.")
    return row.text
