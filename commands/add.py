"""`add`: put further corpora into the index."""

from __future__ import annotations

from typing import Annotated

import typer

from imprompt.commands.build_index import show_report
from imprompt.commands.cleaning_options import CorpusOptions
from imprompt.commands.options import (
    Device,
    Dtype,
    IndexFolder,
    NewMemoryBudget,
    Offline,
    size_bytes,
)
from imprompt.commands.output import Output


def add(
    *,
    corpora: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS…", help="Corpora to add, as --corpus of `build-index`."),
    ],
    reading: CorpusOptions,
    memory_budget: NewMemoryBudget = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    index: IndexFolder = None,
    offline: Offline = False,
    output: Output,
) -> None:
    """Add corpora to the index, using the index's encoder and cleaning settings.

    Prompts that the index already holds keep their row ids and are not encoded again; the new
    submissions are added to their counts. To resume an interrupted addition, repeat the command.
    The current index stays in service until the new one is complete.
    """
    from imprompt.core.protocols import DualEncoder
    from imprompt.core.settings import settings
    from imprompt.core.values import EncoderSpec
    from imprompt.encoders.registry import load_index_encoder, output_encoder
    from imprompt.indexer.adding import add_corpora
    from imprompt.indexer.cleaning_rules import read_unsafe_words
    from imprompt.store.gpu import opened_gpu
    from imprompt.store.index_version import open_version

    run = settings(index=index, offline=offline)
    with open_version(run.index) as version:
        specs = version.manifest.encoders

    def load(spec: EncoderSpec) -> DualEncoder:
        return load_index_encoder(
            spec, device=device, dtype=dtype, offline=run.offline, announce=output.note
        )

    encoder = load(specs[0])
    # An index of an early version stores no MiniLM vectors, and gets none now.
    minilm = [output_encoder(encoder, device=device, announce=output.note)] if specs[1:] else []
    also = [load(spec) for spec in specs[2:]]
    with opened_gpu(device, announce=output.note) as gpu:
        report = add_corpora(
            run.index,
            reading.sources(corpora, offline=run.offline, announce=output.note),
            encoder,
            extra=minilm,
            also=also,
            strict=reading.strict,
            unsafe_words=read_unsafe_words(reading.unsafe_words),
            dropped=reading.dropped,
            memory_budget_bytes=None if memory_budget is None else size_bytes(memory_budget),
            gpu=gpu,
            progress=output.progress(),
        )
    if output.json:
        output.line({"added": report.built, "encoded": report.encoded, "manifest": report.manifest})
    else:
        show_report(output, report, run.index)
        output.text(f"{report.encoded:,} vectors encoded.")
