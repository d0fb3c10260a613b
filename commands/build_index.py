"""`build-index`: from corpora of prompts to a published index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands import cleaning_options as clean
from imprompt.commands.engine_options import LOCAL, ActorCpus, EngineName, Shards, ray_cluster_of
from imprompt.commands.options import (
    Device,
    EncoderName,
    IndexFolder,
    Json,
    Limit,
    Offline,
    PromptColumn,
    Quiet,
    Sample,
    Seed,
    Strict,
    Verbose,
)
from imprompt.commands.output import Output, funnel, size_text
from imprompt.commands.size_options import DEFAULT_MEMORY, MemoryBudget, size_bytes
from imprompt.environment.presets import PRESETS, Preset

if TYPE_CHECKING:
    from imprompt.core.values import RejectedRow
    from imprompt.indexer.build import BuildReport


def build_index(
    preset: Annotated[
        Preset, typer.Option("--preset", help="A named pair of encoder and corpus.")
    ] = Preset.LITE,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="SPEC",
            help="Instead of the preset's: FILE.parquet, .csv, .tsv, .jsonl, .json, .txt (also .gz, .zst), "
            "FILE.duckdb#TABLE.COLUMN, a FOLDER of tables, `images:FOLDER`, `hf:OWNER/NAME`, "
            "`diffusiondb-2m`, `diffusiondb-large`, `gustavosta`, `phrases:clip-interrogator`, `starter`; several are joined.",
            show_default=False,
        ),
    ] = None,
    encoder: EncoderName = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="ENCODER",
            help="Store this encoder's vectors of the prompts, too, for a preset whose knn rescores with it.",
            show_default=False,
        ),
    ] = None,
    column: PromptColumn = None,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    index_factory: Annotated[
        str | None,
        typer.Option(
            "--index-factory",
            metavar="FACTORY",
            help="Instead of the kind that `plan` names: SQfp16, IVF512,PQ96x4fs, …",
            show_default=False,
        ),
    ] = None,
    memory_budget: MemoryBudget = DEFAULT_MEMORY,
    min_words: clean.MinWords = None,
    max_words: clean.MaxWords = None,
    min_tokens: clean.MinTokens = None,
    max_tokens: clean.MaxTokens = None,
    language: clean.Languages = None,
    keep_contacts: clean.KeepContacts = False,
    unsafe: clean.UnsafePrompts = clean.Unsafe.DROP,
    nsfw_limit: clean.NsfwLimit = 0.5,
    unsafe_words: clean.UnsafeWordsFile = None,
    near_duplicates: clean.NearDuplicates = "0.9",
    mark_near_duplicates: clean.MarkNear = False,
    dropped: clean.DroppedFile = None,
    strict: Strict = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Replace an index, and drop a broken build, of something else."
        ),
    ] = False,
    device: Device = "auto",
    engine: EngineName = LOCAL,
    actor_cpus: ActorCpus = None,
    shards: Shards = None,
    index: IndexFolder = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Build the index of prompts. Without options: the embedded encoder over the starter corpus.

    A build that was broken off goes on where it stopped when the same command is given again. The
    index that is in place answers until the new one is complete.
    """
    from imprompt.core.device_names import PROCESSOR
    from imprompt.core.settings import settings
    from imprompt.encoders.registry import load_encoder, output_encoder
    from imprompt.indexer.build import BuildOptions
    from imprompt.indexer.build import build_index as build
    from imprompt.indexer.cleaning_rules import read_unsafe_words
    from imprompt.indexer.engine import LocalEngine
    from imprompt.indexer.ray_engine import NamedSpaces, RayEngine
    from imprompt.indexer.readers.sources import parse_corpus
    from imprompt.store.gpu import opened_gpu

    cleaning = clean.cleaning_of(
        words=(min_words, max_words),
        tokens=(min_tokens, max_tokens),
        languages=language,
        keep_contacts=keep_contacts,
        unsafe=unsafe,
        nsfw_limit=nsfw_limit,
        near_duplicates=near_duplicates,
        mark_near=mark_near_duplicates,
    )
    output = Output(json=json, quiet=quiet, verbose=verbose)
    chosen = settings(index=index, offline=offline)
    folder = chosen.index  # refused here where it is none, before a model is loaded
    plan = PRESETS[preset]
    if encoder is None and not corpus:
        output.note(plan.described)
    pair = load_encoder(
        encoder or plan.encoder, device=device, offline=chosen.offline, announce=output.note
    )
    sources = [
        parse_corpus(
            spec,
            column=column,
            limit=limit,
            sample=sample,
            seed=seed,
            offline=chosen.offline,
            announce=output.note,
        )
        for spec in corpus or [plan.corpus]
    ]
    output.note(f"Building the index in {folder}.")
    # The ensemble contributions with MiniLM's vectors of the prompts, whatever space is searched.
    minilm = output_encoder(pair, device=device, announce=output.note)
    options = BuildOptions(
        index_factory=index_factory,
        memory_budget_bytes=size_bytes(memory_budget),
        replace=replace,
        strict=strict,
        cleaning=cleaning,
        unsafe_words=read_unsafe_words(unsafe_words),
        dropped=dropped,
    )
    others = [
        load_encoder(name, device=device, offline=chosen.offline, announce=output.note)
        for name in also or ()
    ]
    local = LocalEngine(memory_budget_bytes=options.memory_budget_bytes, announce=output.note)
    depot = _depot(engine, shards)
    # On a cluster the device is the workers'; the index is made here.
    here = device if engine == LOCAL or device in PROCESSOR else "auto"
    with (
        ray_cluster_of(engine, device=device, actor_cpus=actor_cpus) as cluster,
        opened_gpu(here, announce=output.note) as gpu,
    ):
        named = NamedSpaces(pair.spec.name, tuple(other.spec.name for other in others), device)
        report = build(
            folder,
            sources,
            pair,
            options=options,
            progress=output.progress(),
            extra=[minilm],
            also=others,
            engine=local if cluster is None else RayEngine(cluster, named, shards=depot),
            gpu=gpu,
        )
    if json:
        for row in report.rejected:
            output.note(_left_out(row))
        output.line(report.manifest)
    else:
        show_report(output, report, folder)


def _depot(engine: str, shards: str | None) -> str | None:
    from imprompt.core.errors import ConfigError
    from imprompt.store.object_store import checked_url

    if shards is not None and engine == LOCAL:
        raise ConfigError(
            "--shards belongs to --engine ray.",
            hint="The local engine writes its shards into the index itself.",
        )
    return None if shards is None else checked_url(shards)


def show_report(output: Output, report: BuildReport, folder: Path) -> None:
    """What a build or an addition did, for a person."""
    from imprompt.store.indexes import WANTED_RECALL

    manifest = report.manifest
    if not report.built:
        output.text(
            f"Nothing to do: {folder} holds just this index ({manifest.rows:,} prompts, version {manifest.version})."
        )
        return
    output.table(funnel(manifest.funnel))
    for row in report.rejected:
        output.text(_left_out(row))
    if report.truncated:
        output.text(
            f"{report.truncated:,} prompts were longer than the encoder reads and were cut."
        )
    size = sum(file.bytes for file in manifest.files.values())
    output.text(
        f"{manifest.rows:,} prompts, {size_text(size)}, {report.seconds:.1f} s, in {folder} (version {manifest.version})."
    )
    for info in manifest.indexes.values():
        if info.recall_at_10 < WANTED_RECALL:
            output.text(
                f"The index {info.factory} finds {info.recall_at_10:.3f} of the ten nearest prompts, not {WANTED_RECALL}. "
                "`query --effort 1` looks at all of them."
            )


def _left_out(row: RejectedRow) -> str:
    return f"  left out: {row.source}:{row.source_key}: {row.reason}"
