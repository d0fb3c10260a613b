"""`embed`: vectors of images or texts, as a file."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import (
    Device,
    EncoderName,
    IndexOption,
    Json,
    Offline,
    Quiet,
    Verbose,
)
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder
    from imprompt.core.settings import Settings
    from imprompt.core.values import RawPrompt, RejectedRow
    from imprompt.retriever.query_embedding import EmbeddedItems

_IMAGES_AT_ONCE = 32
_TEXTS_AT_ONCE = 4096
_TABLES = frozenset({".parquet", ".csv", ".tsv", ".jsonl", ".json"})


class EmbedSpace(StrEnum):
    """Which space the vectors lie in."""

    OUTPUT = "output"
    INDEX = "index"


def embed(
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The .npy file to write: (n, dim) float32 unit rows, in the order given."
        ),
    ],
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH…", help="With --images: files or folders.")
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="The paths are images.")] = False,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts", help="A text file, one a line, or a CSV, TSV, JSONL or Parquet file."
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="The column of the texts.", show_default="prompt")
    ] = None,
    space: Annotated[
        EmbedSpace,
        typer.Option(
            "--space",
            help="`output`: all-MiniLM-L6-v2, 384-d, what the competition scores; `index`: the index's own.",
        ),
    ] = EmbedSpace.OUTPUT,
    index: IndexOption = None,
    encoder: EncoderName = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Write the embeddings of images or texts to a NumPy file.

    In the output space an image's vector is the estimate of the embedded `lite` encoder. An item
    that cannot be read gets a row of zeros, so that the rows stay in step; it is listed, and the
    exit code tells.
    """
    import numpy as np

    from imprompt.core.atomic_files import atomic_write
    from imprompt.core.errors import ConfigError
    from imprompt.core.settings import settings
    from imprompt.encoders.registry import load_encoder, load_index_encoder

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if images == (texts is not None) or bool(paths) != images:
        raise ConfigError(
            "embed takes either --images PATH… or --texts FILE.", hint="Name exactly one of them."
        )
    chosen = settings(index=index, offline=offline)
    given = "lite" if space is EmbedSpace.OUTPUT else encoder
    load = load_encoder if given else load_index_encoder
    pair = load(
        given or _encoder_of_index(chosen),
        device=device,
        offline=chosen.offline,
        announce=output.note,
    )
    done, labels = (
        _embed_texts(texts, column, pair, space, output)
        if texts
        else _embed_images(paths or [], pair, space, output)
    )
    with atomic_write(out) as file:
        np.save(file, done.vectors)
    for row, error in done.failed:
        output.fail(labels[row], error)
    if json:
        output.line(
            {
                "out": str(out),
                "rows": len(labels),
                "dim": done.vectors.shape[1],
                "space": space.value,
                "items": labels,
            }
        )
    else:
        output.text(f"{len(labels)} rows of {done.vectors.shape[1]} in {out}.")
    output.close(total=len(labels))


def _encoder_of_index(chosen: Settings) -> str:
    from imprompt.store.open_index import open_place

    with open_place(chosen.place) as version:
        return version.manifest.encoders[0].name


def _embed_images(
    paths: list[Path], pair: DualEncoder, space: EmbedSpace, output: Output
) -> tuple[EmbeddedItems, list[str]]:
    from imprompt.encoders.lite import LiteImages
    from imprompt.images.decode import ENOUGH_PX, open_image
    from imprompt.images.image_files import find_images
    from imprompt.retriever.query_embedding import embed_rows

    files = find_images(paths)
    tower = pair.images
    encode = (
        tower.output
        if space is EmbedSpace.OUTPUT and isinstance(tower, LiteImages)
        else tower.encode
    )
    load = partial(open_image, enough_px=ENOUGH_PX)
    done = embed_rows(
        files,
        load=load,
        encode=encode,
        dim=pair.spec.dim,
        batch=_IMAGES_AT_ONCE,
        progress=output.progress(),
    )
    return done, [str(path) for path in files]


def _embed_texts(
    file: Path, column: str | None, pair: DualEncoder, space: EmbedSpace, output: Output
) -> tuple[EmbeddedItems, list[str]]:
    from imprompt.encoders.registry import load_minilm
    from imprompt.indexer.readers.compression import table_suffix
    from imprompt.indexer.readers.sources import parse_corpus
    from imprompt.indexer.readers.text_lines import text_source
    from imprompt.retriever.query_embedding import embed_rows

    source = (
        parse_corpus(str(file), column=column)
        if table_suffix(file) in _TABLES
        else text_source(file)
    )
    rows = list(source.open_rows(0))
    tower = load_minilm() if space is EmbedSpace.OUTPUT else pair.texts
    done = embed_rows(
        rows,
        load=_text,
        encode=tower.encode,
        dim=pair.spec.dim,
        batch=_TEXTS_AT_ONCE,
        progress=output.progress(),
    )
    return done, [f"{row.source} {row.source_key}" for row in rows]


def _text(row: RawPrompt | RejectedRow) -> str:
    from imprompt.core.errors import CorpusError
    from imprompt.core.values import RejectedRow
    from imprompt.indexer.readers.rows import EMPTY

    if isinstance(row, RejectedRow):
        if row.reason == EMPTY:
            return ""  # an empty line has its embedding too
        raise CorpusError(f"{row.source} {row.source_key}: {row.reason}.")
    return row.text
