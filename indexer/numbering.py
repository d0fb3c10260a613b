"""From corpora to numbered prompts: read, clean, drop duplicates, give the rest row ids.

An interrupted run resumes after the last batch of rows that was staged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import Checksum, CorpusError
from imprompt.core.protocols import CorpusSource, Progress
from imprompt.indexer.cleaning_rules import Dropped, Rules
from imprompt.indexer.cleaning_stats import (
    DUPLICATE,
    KEPT,
    NEAR_DUPLICATE,
    READ,
    CleaningStats,
    first_of_each_rule,
    funnel,
)
from imprompt.indexer.duplicates import drop_duplicates
from imprompt.indexer.engine import Engine
from imprompt.indexer.journal import Journal, Numbered
from imprompt.store import layout
from imprompt.store.prompts import DuckPrompts
from imprompt.store.staged_prompts import CorpusState, StagedPrompts


def number_prompts(
    staging: Path,
    sources: Sequence[CorpusSource],
    rules: Rules,
    journal: Journal,
    *,
    base: Path | None = None,
    engine: Engine,
    progress: Progress,
) -> Numbered:
    """Write `prompts.duckdb`, with row ids in order of first appearance, and examples of drops.

    Args:
        engine: cleans the rows.
        base: a `prompts.duckdb` whose rows come before those of the sources and keep their ids. The
            funnel does not count them as read.

    Raises:
        CorpusError: a source cannot be read, or no source has a usable prompt.
        StorageFull: the disk is full or read-only.
    """
    if (numbered := resumed_numbering(staging, journal)) is not None:
        return numbered
    with StagedPrompts(staging) as staged:
        if base is not None:
            staged.settle(base)
        stats = [
            _stage_corpus(staged, corpus, source, rules, engine, progress=progress)
            for corpus, source in enumerate(sources)
        ]
        if all(each.read == sum(each.reasons.values()) for each in stats):
            raise _nothing_usable(sources, stats)
        duplicates = drop_duplicates(staged, rules.cleaning, folder=staging, progress=progress)
        with progress.start("Numbering", None):
            counts = staged.number(duplicates.kept_by, mark=rules.cleaning.mark_near)
    examples = [row for each in stats for rows in each.dropped.values() for row in rows]
    _write_dropped(staging / layout.DROPPED, [*examples, *duplicates.examples])
    dropped = {DUPLICATE: counts.duplicates}
    if counts.near_duplicates:
        dropped[NEAR_DUPLICATE] = counts.near_duplicates
    digest, parameters = digest_and_parameters(staging)
    numbered = Numbered(
        rows=counts.rows,
        rows_digest=digest,
        funnel=funnel(stats, kept=counts.rows, duplicates=dropped),
        rejected=[row for each in stats for row in each.examples],
        parameters=parameters,
    )
    journal.append(numbered)
    return numbered


def _stage_corpus(
    staged: StagedPrompts,
    corpus: int,
    source: CorpusSource,
    rules: Rules,
    engine: Engine,
    *,
    progress: Progress,
) -> CleaningStats:
    """Clean and stage the rows of a corpus that are not staged yet; return its counts."""
    state = staged.state(corpus)
    stats = msgspec.convert(state.notes, CleaningStats)
    if state.finished:
        return stats
    with progress.start(f"Reading {source.name}", None) as task:
        task.advance(stats.read)
        for batch in engine.clean(source, rules, start=state.next_start):
            stats = stats.joined(batch.stats)
            state = CorpusState(batch.next_start, False, msgspec.to_builtins(stats))
            staged.add(batch.kept, corpus=corpus, state=state)
            task.advance(batch.stats.read)
    finished = CorpusState(state.next_start, True, msgspec.to_builtins(stats))
    staged.add([], corpus=corpus, state=finished)
    return stats


def _write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """Write examples of dropped prompts as JSON lines, at most twenty a rule, all or nothing.

    Raises:
        StorageFull: the disk is full or read-only.
    """
    encoder = msgspec.json.Encoder()
    with atomic_write(path) as file:
        for rows in first_of_each_rule(dropped).values():
            for row in rows:
                file.write(encoder.encode(row) + b"\n")


def digest_and_parameters(staging: Path) -> tuple[str, int]:
    """Return the digest of the numbered rows, and how many have generation parameters.

    See `imprompt.store.prompts.DuckPrompts.digest`.
    """
    with DuckPrompts(staging / layout.PROMPTS) as prompts:
        return prompts.digest(), prompts.n_parameters


def resumed_numbering(staging: Path, journal: Journal) -> Numbered | None:
    """Return the finished numbering if its prompts are intact; else remove what is left of it."""
    numbered = journal.numbered()
    if numbered is not None and holds_rows(staging, numbered):
        return numbered
    (staging / layout.PROMPTS).unlink(missing_ok=True)
    return None


def holds_rows(staging: Path, numbered: Numbered) -> bool:
    """Tell whether `prompts.duckdb` is intact and holds the rows that were numbered."""
    try:
        with DuckPrompts(staging / layout.PROMPTS) as prompts:
            return (len(prompts), prompts.digest()) == (numbered.rows, numbered.rows_digest)
    except Checksum:
        return False


def _nothing_usable(sources: Sequence[CorpusSource], stats: Sequence[CleaningStats]) -> CorpusError:
    counts = funnel(stats, kept=0, duplicates={})
    reasons = ", ".join(
        f"{count:,} {reason}" for reason, count in counts.items() if reason not in (READ, KEPT)
    )
    first = next((row for each in stats for row in each.examples), None)
    example = "" if first is None else f"; the first is {first.source}, {first.source_key}"
    names = ", ".join(source.name for source in sources)
    return CorpusError(
        f"{names}: no usable prompt in {counts[READ]:,} rows ({reasons or 'none found'}{example}).",
        hint="Check the file and, for a table, --column.",
    )
