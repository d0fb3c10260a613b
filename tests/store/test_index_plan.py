"""The planner: what it chooses, that it keeps to the budget, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprompt.core.errors import ConfigError
from imprompt.store.index_plan import DEFAULT_BUDGET_BYTES, plan_index, read_factory

MIB = 1 << 20
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
SEARCH, SMALL = RESULTS / "search.json", RESULTS / "search_small.json"


@pytest.mark.parametrize(
    ("rows", "dim", "budget", "factory"),
    [
        (1, 384, DEFAULT_BUDGET_BYTES, "SQfp16"),
        (19_999, 384, DEFAULT_BUDGET_BYTES, "SQfp16"),
        (20_000, 384, DEFAULT_BUDGET_BYTES, "IVF128,PQ96x4fs"),
        (20_000, 381, DEFAULT_BUDGET_BYTES, "IVF128,RaBitQ"),
        (100_000, 384, DEFAULT_BUDGET_BYTES, "IVF256,PQ96x4fs"),
        (100_000, 1024, 99 * MIB, "IVF256,PQ256x4fs"),
        (15_000, 1024, 8 * MIB, "IVF128,PQ256x4fs"),
        (200_000, 384, DEFAULT_BUDGET_BYTES, "IVF512,PQ96x4fs"),
        (200_001, 384, DEFAULT_BUDGET_BYTES, "IVF512x2,PQ96x4fs"),
        (2_000_000, 384, DEFAULT_BUDGET_BYTES, "IVF1024x2,PQ96x4fs"),
        (10_000_000, 384, 6 << 30, "IVF4096,SQ8"),
        (10_000_000, 384, 2 << 30, "IVF4096x2,PQ96x4fs"),
        (10_000_000, 384, 8_500 * MIB, "IVF4096x2,PQ96x4fs"),
        (10_000_000, 384, 8_000 * MIB, "IVF4096,PQ96x4fs"),
        (10_000_000, 384, 1 << 30, "IVF4096,PQ96x4fs"),
    ],
)
def test_choice(rows: int, dim: int, budget: int, factory: str) -> None:
    """Flat while a scan is quick.

    Then one bit a value with the vectors in memory, 8 bits without, one bit as the last.

    With one bit, each of more than 200,000 rows stands in two lists where that fits.
    """
    plan = plan_index(rows=rows, dim=dim, budget_bytes=budget)
    assert plan.factory == factory
    assert plan.reasons


@given(
    rows=st.integers(1, 10**9),
    dim=st.integers(8, 2048),
    budget=st.integers(100, 1 << 42) | st.integers(100, 1 << 25),
)
def test_the_budget_is_kept(rows: int, dim: int, budget: int) -> None:
    """A plan takes at most the budget, its ranges are ranges.

    What is refused names the least budget and a number of rows.
    """
    try:
        plan = plan_index(rows=rows, dim=dim, budget_bytes=budget)
    except ConfigError as error:
        needed = re.search(
            r"--memory-budget (\d+)(kB|MB) or more(?:, or take at most about ([\d,]+) rows)?",
            error.hint or "",
        )
        assert needed is not None
        unit_bytes = {"kB": 10**3, "MB": 10**6}[needed[2]]
        least = int(needed[1]) * unit_bytes
        assert budget < least
        assert plan_index(rows=rows, dim=dim, budget_bytes=least).memory_bytes <= least
        with pytest.raises(ConfigError):
            plan_index(rows=rows, dim=dim, budget_bytes=least - unit_bytes)
        if needed[3] is not None:
            fewer = int(needed[3].replace(",", ""))
            assert plan_index(rows=fewer, dim=dim, budget_bytes=budget).rows < rows
        else:
            assert budget < 2 * dim
        return
    assert plan.memory_bytes <= budget
    assert 0 < plan.query_ms[0] <= plan.query_ms[1]
    assert 0 <= plan.build_s[0] <= plan.build_s[1]
    assert read_factory(plan.factory).n_lists == plan.n_lists <= max(rows, 16)


@pytest.mark.parametrize(("rows", "dim"), [(0, 384), (10, 0), (-5, 384)])
def test_nothing_to_plan(rows: int, dim: int) -> None:
    """No rows, no dimensions: refused by value."""
    with pytest.raises(ConfigError, match="cannot be planned"):
        plan_index(rows=rows, dim=dim)


@pytest.mark.parametrize("rows", [20_000, 100_000, 200_000])
def test_times_of_few_rows_hold_what_was_measured(rows: int) -> None:
    """So does that of benchmarks/search_small.py, with the effort that a build measures."""
    engines = json.loads(SMALL.read_text("utf-8"))["sizes"][str(rows)]
    measured_ms = engines["ours"]["single_ms"]["text"][0]
    low, high = plan_index(rows=rows, dim=384).query_ms
    assert low < measured_ms < high < 10 * measured_ms


@pytest.mark.parametrize("rows", [1_000_000, 10_000_000])
def test_times_hold_what_was_measured(rows: int) -> None:
    """The range of a query's time holds the last median of benchmarks/search.py for recall .95."""
    curve = json.loads(SEARCH.read_text("utf-8"))[str(rows)]["engines"]["ours"]["curve"]
    measured_ms = next(point["p50_ms"] for point in curve if point["recall_at_10"] >= 0.95)
    low, high = plan_index(rows=rows, dim=384, budget_bytes=24 << 30).query_ms
    assert low < measured_ms < high < 10 * measured_ms
