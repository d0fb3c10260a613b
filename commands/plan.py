"""`plan`: which index would be built, what it would take and why, without building it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import Device, Json
from imprompt.commands.output import Output, grid, size_text
from imprompt.commands.size_options import DEFAULT_MEMORY, MemoryBudget, size_bytes

if TYPE_CHECKING:
    from imprompt.core.device_names import NvidiaDriver
    from imprompt.store.index_plan import IndexPlan


def plan(
    rows: Annotated[
        str, typer.Option("--rows", metavar="N", help="How many prompts; 2000000, 2e6 or 2M.")
    ],
    dim: Annotated[
        int,
        typer.Option(
            "--dim",
            min=1,
            help="Dimensions of the encoder's vectors: lite 384, ViT-L-14 768, ViT-H-14 1024.",
        ),
    ] = 384,
    memory_budget: MemoryBudget = DEFAULT_MEMORY,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Show which index `build-index` would choose for so many prompts, its bytes in memory and on disk, times, and the reasons."""
    from imprompt.store.index_plan import plan_index

    driver = _driver_for(device)
    output = Output(json=json, quiet=False, verbose=False)
    chosen = plan_index(rows=_count(rows), dim=dim, budget_bytes=size_bytes(memory_budget))
    on_gpu = (
        []
        if driver is None
        else [("on the GPU", _on_gpu(chosen, driver, required=device == "cuda"))]
    )
    if json:
        output.line(chosen)
        return
    output.table(grid("", ["", ""], [*_rows(chosen), *on_gpu]))
    for reason in chosen.reasons:
        output.text(f"- {reason}")


def _count(text: str) -> int:
    from imprompt.core.errors import ConfigError

    try:
        number = float(text[:-1]) * 1e6 if text[-1:] in "mM" else float(text)
        return int(number)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"--rows {text!r} is no number.", hint="Say it like 2000000, 2e6 or 2M."
        ) from error


def _rows(chosen: IndexPlan) -> list[tuple[str, str]]:
    low, high = chosen.query_ms
    faster, slower = chosen.build_s
    with_vectors = ", the stored vectors among them" if chosen.vectors_in_memory else ""
    parts = (
        f", in {chosen.parts} parts of {-(-chosen.rows // chosen.parts):,} rows"
        if chosen.parts > 1
        else ""
    )
    shared = "; all cores share the parts" if chosen.parts > 1 else ""
    return [
        ("prompts", f"{chosen.rows:,} of {chosen.dim} dimensions"),
        ("index", chosen.factory + parts),
        ("memory while it answers", size_text(chosen.memory_bytes) + with_vectors),
        ("index on disk", size_text(chosen.index_bytes)),
        (
            "version on disk",
            f"{size_text(chosen.disk_bytes)}, with the prompts, their vectors and MiniLM's",
        ),
        ("a question", f"{low:,.1f} to {high:,.1f} ms to search, on one core{shared}"),
        (
            "the index stage",
            f"{_duration(faster)} to {_duration(slower)} in about {size_text(chosen.build_memory_bytes)} of memory; "
            "encoding the prompts comes on top",
        ),
    ]


def _driver_for(device: str) -> NvidiaDriver | None:
    """What the driver says of a GPU;

    None for the processor, and where there is no GPU that `device` insists on.
    """
    from imprompt.core.device_names import PROCESSOR, WITHOUT_GPU, check_device, nvidia_driver
    from imprompt.core.errors import ConfigError

    check_device(device)
    driver = None if device in PROCESSOR else nvidia_driver()
    if driver is None or not driver.problem:
        return driver
    if device == "cuda":
        raise ConfigError(f"There is no GPU to plan for: {driver.problem}.", hint=WITHOUT_GPU)
    return None


def _on_gpu(chosen: IndexPlan, driver: NvidiaDriver, *, required: bool) -> str:
    from imprompt.core.device_names import WITHOUT_GPU
    from imprompt.core.errors import ConfigError

    needed = size_text(chosen.gpu_bytes)
    if chosen.gpu_bytes > driver.memory_bytes:
        if required:
            raise ConfigError(f"{driver.gpu} cannot hold the vectors, {needed}.", hint=WITHOUT_GPU)
        return f"the processor answers: the vectors take {needed}, {driver.gpu} has {size_text(driver.memory_bytes)}"
    return f"{needed} of {size_text(driver.memory_bytes)} ({driver.gpu}), with the extra gpu: all vectors are compared, exactly"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
