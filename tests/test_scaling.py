"""docs/scaling.md says what its script reckons from the committed results."""

from __future__ import annotations

from benchmarks.scaling import PAGE, Prices, measured_rates, reckoned, with_tables


def test_the_tables_are_those_of_the_committed_results() -> None:
    """After a new measurement `python benchmarks/scaling.py` writes the page again."""
    page = PAGE.read_text("utf-8")
    assert with_tables(page, reckoned(measured_rates(), Prices())) == page
