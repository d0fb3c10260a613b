"""The rows of a corpus, as tests of readers compare them."""

from __future__ import annotations

from pathlib import Path

from imprompt.core.values import RawPrompt, RejectedRow
from imprompt.indexer.readers.sources import parse_corpus

Row = RawPrompt | RejectedRow


def rows_of(spec: Path | str, *, column: str | None = None) -> list[Row]:
    """Return all rows in order."""
    rows: list[Row] = []
    for batch in parse_corpus(str(spec), column=column).batches(1):
        rows += [*batch.prompts, *batch.rejected]
    return rows


def texts(rows: list[Row]) -> list[str]:
    return [row.text for row in rows if isinstance(row, RawPrompt)]


def reasons(rows: list[Row]) -> dict[str, str]:
    return {row.source_key: row.reason for row in rows if isinstance(row, RejectedRow)}
