"""`add`: further corpora into the index."""

from __future__ import annotations

from typing import Annotated

import typer

from imprompt.commands.build_index import show_report
from imprompt.commands.cleaning_options import DroppedFile, UnsafeWordsFile
from imprompt.commands.options import (
    Device,
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
from imprompt.commands.output import Output
from imprompt.commands.size_options import size_bytes


def add(
    corpora: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS…", help="As --corpus of `build-index`; several are joined."),
    ],
    column: PromptColumn = None,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    strict: Strict = False,
    unsafe_words: UnsafeWordsFile = None,
    dropped: DroppedFile = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            "--memory-budget",
            metavar="SIZE",
            help="Instead of the one that the index was built with, such as 8GiB.",
        ),
    ] = None,
    device: Device = "auto",
    index: IndexFolder = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Add corpora to the index, cleaned as it was and by its encoder. What it has is not encoded again and keeps its row ids.

    Prompts that it has already are counted for it. An addition that was broken off goes on where it
    stopped when the same command is given again; the index that is in place answers until it is
    complete.
    """
    from imprompt.core.settings import settings
    from imprompt.encoders.registry import load_index_encoder, output_encoder
    from imprompt.indexer.adding import add_corpora
    from imprompt.indexer.cleaning_rules import read_unsafe_words
    from imprompt.indexer.readers.sources import parse_corpus
    from imprompt.store.gpu import opened_gpu
    from imprompt.store.index_version import open_version

    output = Output(json=json, quiet=quiet, verbose=verbose)
    chosen = settings(index=index, offline=offline)
    with open_version(chosen.index) as version:
        encoders = version.manifest.encoders
    pair = load_index_encoder(
        encoders[0].name, device=device, offline=chosen.offline, announce=output.note
    )
    # An index of an early version holds no vectors of MiniLM; none are added to it then.
    extra = [output_encoder(pair, device=device, announce=output.note)] if len(encoders) > 1 else []
    names = [spec.name for spec in encoders[2:]]
    also = [
        load_index_encoder(name, device=device, offline=chosen.offline, announce=output.note)
        for name in names
    ]
    with opened_gpu(device, announce=output.note) as gpu:
        report = add_corpora(
            chosen.index,
            [
                parse_corpus(
                    spec,
                    column=column,
                    limit=limit,
                    sample=sample,
                    seed=seed,
                    offline=chosen.offline,
                    announce=output.note,
                )
                for spec in corpora
            ],
            pair,
            extra=extra,
            also=also,
            strict=strict,
            unsafe_words=read_unsafe_words(unsafe_words),
            dropped=dropped,
            memory_budget_bytes=None if memory_budget is None else size_bytes(memory_budget),
            gpu=gpu,
            progress=output.progress(),
        )
    if json:
        output.line({"added": report.built, "encoded": report.encoded, "manifest": report.manifest})
    else:
        show_report(output, report, chosen.index)
        output.text(f"{report.encoded:,} vectors were made.")
