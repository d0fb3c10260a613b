"""`build-index`: turn corpora of prompts into a published index."""

from __future__ import annotations

from dataclasses import replace as replace_fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.cleaning_options import CleaningOptions, CorpusOptions
from imprompt.commands.engine_options import EngineOptions
from imprompt.commands.options import (
    DEFAULT_MEMORY,
    Device,
    Dtype,
    EncoderName,
    IndexFolder,
    MemoryBudget,
    Offline,
    size_bytes,
)
from imprompt.commands.output import Output, funnel
from imprompt.core.text import size_text
from imprompt.environment.presets import PRESETS, Preset

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder
    from imprompt.core.values import RejectedRow
    from imprompt.indexer.build import BuildOptions, BuildReport
    from imprompt.indexer.cleaning_rules import Cleaning


def build_index(
    *,
    preset: Annotated[
        Preset, typer.Option("--preset", help="A named choice of encoder and corpus.")
    ] = Preset.LITE,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="SPEC",
            help="A corpus to read instead of the preset's; repeatable. FILE.parquet, .arrow, "
            ".csv, .tsv, .jsonl, .json or .txt (text also .gz, .zst), FILE.tar (a WebDataset), "
            "FILE.duckdb#TABLE.COLUMN, a FOLDER of tables, "
            "`images:FOLDER`, `hf:OWNER/NAME`, `diffusiondb-2m`, `diffusiondb-large`, "
            "`gustavosta`, `phrases:clip-interrogator` or `starter`.",
            show_default=False,
        ),
    ] = None,
    encoder: EncoderName = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="ENCODER",
            help="Also store this encoder's vectors, for blend configs that rescore with it; "
            "repeatable.",
            show_default=False,
        ),
    ] = None,
    reading: CorpusOptions,
    index_factory: Annotated[
        str | None,
        typer.Option(
            "--index-factory",
            metavar="FACTORY",
            help="The FAISS index type, such as SQfp16 or IVF512,PQ96x4fs. [default: what `plan` "
            "chooses]",
            show_default=False,
        ),
    ] = None,
    memory_budget: MemoryBudget = DEFAULT_MEMORY,
    cleaning: CleaningOptions,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Overwrite an index, or an unfinished build, of another corpus or encoder.",
        ),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: EngineOptions,
    shards: Annotated[
        str | None,
        typer.Option(
            "--shards",
            metavar="URL",
            help="With Ray: pass vectors through a folder that all machines share, "
            "s3://BUCKET/PREFIX or gs://BUCKET/PREFIX. [default: Ray's object store]",
            show_default=False,
        ),
    ] = None,
    index: IndexFolder = None,
    offline: Offline = False,
    output: Output,
) -> None:
    """Build the index of prompts. Without options: the built-in encoder, the starter corpus.

    To resume an interrupted build, repeat the command. The current index stays in service until the
    new one is complete.
    """
    from imprompt.core.device_names import PROCESSOR
    from imprompt.core.settings import settings
    from imprompt.encoders.registry import load_encoder, output_encoder
    from imprompt.indexer.build import build_index as build
    from imprompt.indexer.engine import LocalEngine
    from imprompt.indexer.ray_engine import NamedSpaces, RayEngine
    from imprompt.store.gpu import opened_gpu
    from imprompt.store.paths import refuse_other_files

    rules = cleaning.cleaning()
    shards_url = _checked_shards(shards, engine)
    run = settings(index=index, offline=offline)
    folder = run.index  # fails for an index on Milvus before a model is loaded
    refuse_other_files(folder)
    parts = PRESETS[preset]
    if encoder is None and not corpus:
        output.note(parts.described)

    def load(name: str) -> DualEncoder:
        return load_encoder(
            name, device=device, dtype=dtype, offline=run.offline, announce=output.note
        )

    dual = load(encoder or parts.encoder)
    if not corpus and reading.sample is None:
        reading = replace_fields(reading, sample=parts.sample)
    sources = reading.sources(corpus or [parts.corpus], offline=run.offline, announce=output.note)
    output.note(f"Building the index in {folder}.")
    # The ensemble works in MiniLM's space, whichever space is searched.
    minilm = output_encoder(dual, device=device, announce=output.note)
    options = _build_options(
        reading,
        rules,
        index_factory=index_factory,
        memory_budget_bytes=size_bytes(memory_budget),
        replace=replace,
    )
    others = [load(name) for name in also or ()]
    local = LocalEngine(memory_budget_bytes=options.memory_budget_bytes, announce=output.note)
    # On a cluster, `device` is the workers'; this machine still makes the index.
    here = device if engine.local or device in PROCESSOR else "auto"
    with engine.cluster(device=device) as cluster, opened_gpu(here, announce=output.note) as gpu:
        also_named = tuple(other.spec.name for other in others)
        spaces = NamedSpaces(dual.spec.name, also_named, device, dtype)
        report = build(
            folder,
            sources,
            dual,
            options=options,
            progress=output.progress(),
            extra=[minilm],
            also=others,
            engine=RayEngine(cluster, spaces, shards=shards_url) if cluster else local,
            gpu=gpu,
        )
    if output.json:
        _print_json(output, report)
    else:
        show_report(output, report, folder)


def _build_options(
    reading: CorpusOptions,
    rules: Cleaning,
    *,
    index_factory: str | None,
    memory_budget_bytes: int,
    replace: bool,
) -> BuildOptions:
    from imprompt.indexer.build import BuildOptions
    from imprompt.indexer.cleaning_rules import read_unsafe_words

    return BuildOptions(
        index_factory=index_factory,
        memory_budget_bytes=memory_budget_bytes,
        replace=replace,
        strict=reading.strict,
        cleaning=rules,
        unsafe_words=read_unsafe_words(reading.unsafe_words),
        dropped=reading.dropped,
    )


def _checked_shards(shards: str | None, engine: EngineOptions) -> str | None:
    from imprompt.core.errors import ConfigError
    from imprompt.store.object_store import checked_url

    if shards is None:
        return None
    if engine.local:
        raise ConfigError(
            "--shards belongs to --engine ray.",
            hint="The local engine writes its shards into the index itself.",
        )
    return checked_url(shards)


def show_report(output: Output, report: BuildReport, folder: Path) -> None:
    """Print what a build or an addition did."""
    from imprompt.store.indexes import WANTED_RECALL

    manifest = report.manifest
    if not report.built:
        output.text(
            f"Nothing to do: {folder} already holds this index "
            f"({manifest.rows:,} prompts, version {manifest.version})."
        )
        return
    output.table(funnel(manifest.funnel))
    for row in report.rejected:
        output.text(_left_out(row))
    if report.truncated:
        output.text(f"{report.truncated:,} prompts exceed the encoder's limit and were truncated.")
    size = manifest.n_bytes
    output.text(
        f"{manifest.rows:,} prompts, {size_text(size)}, {report.seconds:.1f} s, in {folder} "
        f"(version {manifest.version})."
    )
    for info in manifest.indexes.values():
        if info.recall_at_10 < WANTED_RECALL:
            output.text(
                f"The index {info.factory} finds {info.recall_at_10:.3f} of the ten nearest "
                f"prompts, below {WANTED_RECALL}. `query --effort 1` searches exactly."
            )


def _print_json(output: Output, report: BuildReport) -> None:
    for row in report.rejected:
        output.note(_left_out(row))
    output.line(report.manifest)


def _left_out(row: RejectedRow) -> str:
    return f"  left out: {row.source}:{row.source_key}: {row.reason}"
