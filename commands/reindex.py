"""`reindex`: make the index anew from the stored vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from imprompt.commands.options import Device, IndexFolder, NewMemoryBudget, size_bytes
from imprompt.commands.output import Output


def reindex(
    *,
    index_factory: Annotated[
        str | None,
        typer.Option(
            "--index-factory",
            metavar="FACTORY",
            help="The FAISS index type, such as SQfp16 or IVF512,PQ96x4fs. [default: as built, or "
            "with --memory-budget what `plan` chooses]",
            show_default=False,
        ),
    ] = None,
    memory_budget: NewMemoryBudget = None,
    device: Device = "auto",
    index: IndexFolder = None,
    output: Output,
) -> None:
    """Make the index anew from the stored vectors, for another memory budget or to repair it.

    Nothing is encoded; prompts and vectors stay the same. Without options the settings stay the
    same, too, and nothing is done if the index is whole. The current version answers until the new
    one is complete; `gc` removes old versions.
    """
    from imprompt.core.settings import settings
    from imprompt.indexer.reindexing import reindex as make_anew
    from imprompt.store.gpu import opened_gpu

    folder = settings(index=index).index
    with opened_gpu(device, announce=output.note) as gpu:
        report = make_anew(
            folder,
            index_factory=index_factory,
            memory_budget_bytes=None if memory_budget is None else size_bytes(memory_budget),
            gpu=gpu,
            progress=output.progress(),
        )
    manifest = report.manifest
    info = manifest.indexes[manifest.encoders[0].space]
    if output.json:
        output.line({"built": report.built, "manifest": manifest})
    elif report.built:
        output.text(
            f"{manifest.rows:,} prompts indexed with {info.factory} (recall@10 "
            f"{info.recall_at_10:.3f}), in {folder} (version {manifest.version})."
        )
    else:
        output.text(
            f"Nothing to do: the index in {folder} is whole and already {info.factory} "
            f"(version {manifest.version})."
        )
