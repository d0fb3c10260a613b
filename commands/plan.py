"""`plan`: show which index `build-index` would choose, what it takes and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import DEFAULT_MEMORY, Device, MemoryBudget, size_bytes
from imprompt.commands.output import Output, grid
from imprompt.core.text import size_text

if TYPE_CHECKING:
    from imprompt.core.device_names import NvidiaDriver
    from imprompt.store.index_plan import IndexPlan


def plan(
    *,
    rows: Annotated[
        str, typer.Option("--rows", metavar="N", help="Number of prompts: 2000000, 2e6 or 2M.")
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
    output: Output,
) -> None:
    """Show which index `build-index` would choose for that many prompts, its cost, and why."""
    from imprompt.store.index_plan import plan_index

    driver = _usable_driver(device)
    index_plan = plan_index(rows=_count(rows), dim=dim, budget_bytes=size_bytes(memory_budget))
    table = _rows(index_plan)
    if driver is not None:
        table.append(("on the GPU", _on_gpu(index_plan, driver, required=device == "cuda")))
    if output.json:
        output.line(index_plan)
        return
    output.table(grid("", ["", ""], table))
    for reason in index_plan.reasons:
        output.text(f"- {reason}")


def _count(text: str) -> int:
    from imprompt.core.errors import ConfigError

    try:
        number = int(float(text[:-1]) * 1e6 if text[-1:] in "mM" else float(text))
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"--rows {text!r} is not a number.", hint="Write it like 2000000, 2e6 or 2M."
        ) from error
    if number < 1:
        raise ConfigError(f"--rows is {text}; it must be at least 1.")
    return number


def _rows(plan: IndexPlan) -> list[tuple[str, str]]:
    low, high = plan.query_ms
    fast, slow = plan.build_s
    parts, threads = "", ""
    if plan.parts > 1:
        parts = f", in {plan.parts} parts of {-(-plan.rows // plan.parts):,} rows"
        threads = "; all cores share the parts"
    vectors = ", including the stored vectors" if plan.vectors_in_memory else ""
    return [
        ("prompts", f"{plan.rows:,} of {plan.dim} dimensions"),
        ("index", plan.factory + parts),
        ("memory in use", size_text(plan.memory_bytes) + vectors),
        ("index on disk", size_text(plan.index_bytes)),
        (
            "version on disk",
            f"{size_text(plan.disk_bytes)}, with the prompts, their vectors and MiniLM's",
        ),
        (
            "temporary files",
            f"{size_text(plan.staging_bytes)} while a corpus of that many rows is read",
        ),
        ("search time", f"{low:,.1f} to {high:,.1f} ms per question on one core{threads}"),
        (
            "indexing time",
            f"{_duration(fast)} to {_duration(slow)} with about "
            f"{size_text(plan.build_memory_bytes)} of memory, after encoding the prompts",
        ),
    ]


def _usable_driver(device: str) -> NvidiaDriver | None:
    """Return what the NVIDIA driver reports, or None where the CPU is to be used.

    Raises:
        ConfigError: unknown device, or "cuda" and there is no GPU.
    """
    from imprompt.core.device_names import NO_NVIDIA, WITHOUT_GPU, check_device, nvidia_driver
    from imprompt.core.errors import ConfigError

    check_device(device)
    driver = None if device in NO_NVIDIA else nvidia_driver()
    if driver is None or not driver.problem:
        return driver
    if device == "cuda":
        raise ConfigError(f"There is no GPU to plan for: {driver.problem}.", hint=WITHOUT_GPU)
    return None


def _on_gpu(plan: IndexPlan, driver: NvidiaDriver, *, required: bool) -> str:
    from imprompt.core.device_names import WITHOUT_GPU
    from imprompt.core.errors import ConfigError

    needed, memory = size_text(plan.gpu_bytes), size_text(driver.memory_bytes)
    if plan.gpu_bytes <= driver.memory_bytes:
        return f"{needed} of {memory} ({driver.gpu}), with the extra gpu: exact search"
    if required:
        raise ConfigError(f"{driver.gpu} cannot hold the vectors, {needed}.", hint=WITHOUT_GPU)
    return f"not used: the vectors take {needed}, {driver.gpu} has {memory}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
