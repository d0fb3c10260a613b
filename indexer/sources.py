"""From what a user types after `--corpus` to a source that can be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import ConfigError, CorpusError, ImageRejected
from core.fetch import Announce, HubFile, fetch, silent
from core.values import RejectedRow
from images.files import find_images
from images.reading import read_embedded_prompts
from indexer.csv_tables import csv_source
from indexer.lines import json_lines_source, text_source
from indexer.parquet_tables import parquet_source
from indexer.rows import Row, StreamedSource, count_rows, judge
from indexer.sampling import first_rows, sampled_rows
from indexer.starter import starter_source

STARTER = "starter"
IMAGES = "images:"
UNREADABLE_IMAGE = "unreadable image"

PRESETS = {
    "diffusiondb-2m": HubFile("poloclub/diffusiondb", "metadata.parquet", repo_type="dataset"),
    "diffusiondb-large": HubFile("poloclub/diffusiondb", "metadata-large.parquet", repo_type="dataset"),
}
"""Corpora with a name: one Parquet file of the hub each, found in the hub's cache or fetched."""

_FILE_KINDS: dict[str, Callable[[Path, str | None], StreamedSource]] = {
    ".parquet": lambda path, column: parquet_source(path, column=column),
    ".csv": lambda path, column: csv_source(path, delimiter=",", column=column),
    ".tsv": lambda path, column: csv_source(path, delimiter="\t", column=column),
    ".jsonl": lambda path, column: json_lines_source(path, column=column),
    ".txt": lambda path, _column: text_source(path),
}

_FORMS = f"A corpus is `{STARTER}`, `{'`, `'.join(PRESETS)}`, `{IMAGES}FOLDER`, or a file that ends in {', '.join(_FILE_KINDS)}."


def parse_corpus(
    spec: str,
    *,
    column: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    offline: bool = False,
    announce: Announce = silent,
) -> StreamedSource:
    """The corpus that `spec` names, opened far enough to know that it has rows.

    Args:
        spec: "starter", a name of `PRESETS`, "images:FOLDER", or a file of one of the kinds; its suffix says which.
        column: the column of the prompts, for kinds that have columns; by default `prompt`, else the only one of text.
        limit: the first rows only.
        sample: so many rows, drawn by `seed` from all or from the first `limit`.
        seed: of the sample.
        offline: never fetch a preset that the hub's cache lacks.
        announce: is told what is fetched, from where and how large it is, before it starts.

    Raises:
        ConfigError: `limit` or `sample` below 1, or `seed` below 0.
        WeightsMissing: the file of a preset is not there and cannot be fetched.
        CorpusError: it is not there, of no known kind, without that column or without rows.
    """
    for option, value, least in (("--limit", limit, 1), ("--sample", sample, 1), ("--seed", seed, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{option} {value} is too small.", hint=f"It is at least {least}.")
    preset = PRESETS.get(spec)
    source = _preset(spec, preset, offline=offline, announce=announce) if preset else _open(spec, column)
    if next(source.open_rows(0), None) is None:
        raise CorpusError(f"{spec} holds no rows.", path=Path(spec), hint="Name a corpus with at least one prompt.")
    if limit is not None:
        source = first_rows(source, limit)
    return source if sample is None else sampled_rows(source, sample, seed=seed)


def _preset(name: str, file: HubFile, *, offline: bool, announce: Announce) -> StreamedSource:
    return parquet_source(fetch(file, offline=offline, announce=announce), column="prompt", name=name)


def _open(spec: str, column: str | None) -> StreamedSource:
    if spec == STARTER:
        return starter_source()
    if spec.startswith(IMAGES):
        return images_source(Path(spec.removeprefix(IMAGES)).expanduser())
    path = Path(spec).expanduser()
    if not path.exists():
        raise CorpusError(f"There is no corpus {spec!r}.", path=path, hint=_FORMS)
    if path.is_dir():
        raise CorpusError(f"{path} is a folder.", path=path, hint=f"For the prompts inside its images, say {IMAGES}{path}.")
    open_kind = _FILE_KINDS.get(path.suffix.lower())
    if open_kind is None or not path.is_file():
        raise CorpusError(f"{path} is of no kind that can be read as a corpus.", path=path, hint=_FORMS)
    return open_kind(path, column)


def images_source(folder: Path) -> StreamedSource:
    """The prompts that the images below a folder carry; `source_key` is the path inside the folder.

    The fingerprint is one of the prompts found, not of the pixels: headers are read, not whole files.

    Raises:
        CorpusError: not a folder.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder.", path=folder, hint=f"Name a folder with images: {IMAGES}FOLDER.")
    name = _printable(folder.resolve().name)

    def rows(start: int) -> Iterator[Row]:
        for path, found in read_embedded_prompts(find_images([folder])[start:]):
            key = _printable(path.relative_to(folder).as_posix())
            if isinstance(found, ImageRejected):
                yield RejectedRow(name, key, f"{UNREADABLE_IMAGE}: {found.reason}")
            else:
                yield RejectedRow(name, key, "no embedded prompt") if found is None else judge(found.prompt, source=name, key=key)

    def digest() -> str:
        whole = hashlib.sha256(b"images 1")
        for row in rows(0):
            whole.update(repr((row.source_key, row.reason if isinstance(row, RejectedRow) else row.text)).encode())
        return whole.hexdigest()

    return StreamedSource(name, False, rows, digest, lambda: count_rows(rows))


def _printable(path: str) -> str:
    """File names may hold bytes that are not UTF-8; a store of texts may not."""
    return os.fsencode(path).decode("utf-8", "replace")
