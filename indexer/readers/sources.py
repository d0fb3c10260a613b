"""From what a user types after `--corpus` to a source that can be read."""

from __future__ import annotations

from pathlib import Path

from imprompt.core.errors import ConfigError, CorpusError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.text import as_utf8
from imprompt.images.image_files import find_images
from imprompt.indexer.readers.duckdb_tables import duckdb_source
from imprompt.indexer.readers.hub_datasets import FORM, HUB, HubCorpus, hub_source, parse_hub_spec
from imprompt.indexer.readers.image_folders import IMAGES, images_source
from imprompt.indexer.readers.interrogator_phrases import PACKAGE, PHRASES, phrases_source
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.sampling import first_rows, sampled_rows
from imprompt.indexer.readers.starter import starter_source
from imprompt.indexer.readers.table_files import (
    FORMS,
    find_tables,
    is_table,
    joined_source,
    open_table,
)

STARTER = "starter"
DUCKDB = ".duckdb"

NAMED_CORPORA = {
    "diffusiondb-2m": HubCorpus(
        "poloclub/diffusiondb", column="prompt", filenames=("metadata.parquet",)
    ),
    "diffusiondb-large": HubCorpus(
        "poloclub/diffusiondb", column="prompt", filenames=("metadata-large.parquet",)
    ),
    "gustavosta": HubCorpus(
        "Gustavosta/Stable-Diffusion-Prompts",
        column="Prompt",
        filenames=("data/train.parquet", "data/eval.parquet"),
    ),
}
"""Named corpora, from the hub's cache or fetched.

Of DiffusionDB only the prompt and its score are read, not the user names.
"""

_FORMS = (
    f"A corpus is `{STARTER}`, `{'`, `'.join(NAMED_CORPORA)}`, `{FORM}`, `{PHRASES}{PACKAGE}`, "
    f"`{IMAGES}FOLDER`, FILE{DUCKDB}, or a file, or a folder of files, that ends in {FORMS}."
)


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
    """Open the corpus that `spec` names, and check that it has rows.

    Args:
        spec: one of the forms in docs/corpora.md. A name of `NAMED_CORPORA` wins over a
            file of that name.
        column: of the prompts, if `spec` does not name it; by default `prompt`, else the only text
            column.
        limit: take the first rows only.
        sample: draw this many rows from all or from the first `limit`.
        seed: of the sample.
        offline: never ask the hub for what its cache lacks.
        announce: takes a line on each download, its origin and size, before it starts.

    Raises:
        ConfigError: `limit` or `sample` is below 1, `seed` below 0, or the spec is malformed.
        CorpusError: the corpus does not exist and cannot be fetched, is of no known kind, or lacks
            that column or any row.
    """
    for option, value, least in (
        ("--limit", limit, 1),
        ("--sample", sample, 1),
        ("--seed", seed, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{option} must be at least {least}, not {value}.")
    source = _named(spec, column, offline=offline, announce=announce) or _local(spec, column)
    if next(source.open_rows(0), None) is None:
        raise CorpusError(
            f"{spec} has no rows.", path=Path(spec), hint="Name a corpus with at least one prompt."
        )
    for remark in source.remarks():
        announce(remark)
    if limit is not None:
        source = first_rows(source, limit)
    return source if sample is None else sampled_rows(source, sample, seed=seed)


def _named(
    spec: str, column: str | None, *, offline: bool, announce: Announce
) -> StreamedSource | None:
    """Open a corpus that is not named by a path; None if `spec` does not name one."""
    if spec == STARTER:
        return starter_source()
    if spec in NAMED_CORPORA:
        return hub_source(
            NAMED_CORPORA[spec], name=spec, column=None, offline=offline, announce=announce
        )
    if spec.startswith(HUB):
        corpus = parse_hub_spec(spec.removeprefix(HUB))
        return hub_source(corpus, name=None, column=column, offline=offline, announce=announce)
    if spec.startswith(PHRASES):
        return phrases_source(spec.removeprefix(PHRASES))
    return None


def _local(spec: str, column: str | None) -> StreamedSource:
    if spec.startswith(IMAGES):
        return images_source(Path(spec.removeprefix(IMAGES)).expanduser())
    path, part = Path(spec).expanduser(), None
    if not path.exists() and "#" in spec:
        named, _, part = spec.rpartition("#")
        path = Path(named).expanduser()
    if not path.exists():
        raise CorpusError(f"There is no corpus {spec!r}.", path=path, hint=_FORMS)
    if path.is_dir():
        return _folder(path, part or column)
    if path.suffix.lower() == DUCKDB:
        return duckdb_source(path, part=part, column=column)
    if not path.is_file() or not is_table(path.name):
        raise CorpusError(
            f"{path} is of no kind that can be read as a corpus.", path=path, hint=_FORMS
        )
    return open_table(path, part or column)


def _folder(path: Path, column: str | None) -> StreamedSource:
    files = find_tables(path)
    if not files:
        images = "; it holds images" if find_images([path]) else ""
        raise CorpusError(
            f"{path} is a folder without a table{images}.",
            path=path,
            hint=f"For the prompts inside its images, say {IMAGES}{path}. A table ends in {FORMS}.",
        )
    return joined_source(as_utf8(path.resolve().name), files, column=column)
