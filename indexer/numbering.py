"""The stages of a build between its plan and its index: read, clean, fold, number, encode.

Each goes on where it was broken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from imprompt.core.errors import Checksum, CorpusError
from imprompt.core.protocols import CorpusSource, Progress
from imprompt.indexer.cleaning_rules import Rules
from imprompt.indexer.cleaning_stats import (
    DUPLICATE,
    KEPT,
    NEAR_DUPLICATE,
    READ,
    CleaningStats,
    funnel,
)
from imprompt.indexer.duplicates import drop_duplicates, write_dropped
from imprompt.indexer.engine import BuildSpace, Engine, WantedShard
from imprompt.indexer.journal import Journal, Numbered, ShardDone
from imprompt.store import layout
from imprompt.store.prompts import DuckPrompts
from imprompt.store.shards import shard_is_whole
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
    """Read all sources, leave out what the rules say, fold duplicates, number the rest in order of first appearance, and write
    `prompts.duckdb` and, beside it, examples of what was left out.

    Args:
        engine: cleans the rows.
        base: a `prompts.duckdb` whose rows come before those of the sources and keep their ids. The
            funnel does not count them as read.

    Raises:
        CorpusError: a source cannot be read, or no source has a usable prompt.
        StorageFull: the disk is full or may not be written.
    """
    done = journal.numbered()
    if done is not None and holds_rows(staging, done):
        return done
    (staging / layout.PROMPTS).unlink(missing_ok=True)
    with StagedPrompts(staging) as staged:
        if base is not None:
            staged.settle(base)
        tallies = [
            _read(staged, place, source, rules, engine, progress=progress)
            for place, source in enumerate(sources)
        ]
        if all(tally.read == sum(tally.reasons.values()) for tally in tallies):
            raise _nothing_usable(sources, tallies)
        folding = drop_duplicates(staged, rules.cleaning, progress=progress)
        with progress.start("Numbering", None):
            numbered = staged.number(folding.stands_for, mark=rules.cleaning.mark_near)
    dropped = [
        *(row for tally in tallies for rows in tally.dropped.values() for row in rows),
        *folding.examples,
    ]
    write_dropped(staging / layout.DROPPED, dropped)
    folded = {
        DUPLICATE: numbered.duplicates,
        **({NEAR_DUPLICATE: numbered.folded} if numbered.folded else {}),
    }
    entry = Numbered(
        rows=numbered.rows,
        rows_digest=prompts_digest(staging),
        funnel=funnel(tallies, kept=numbered.rows, folded=folded),
        rejected=[row for tally in tallies for row in tally.examples],
    )
    journal.append(entry)
    return entry


def encode_spaces(
    staging: Path,
    spaces: Sequence[BuildSpace],
    journal: Journal,
    *,
    rows: range,
    first_shard: int = 0,
    shard_rows: int,
    engine: Engine,
    progress: Progress,
) -> dict[str, list[ShardDone]]:
    """Let the engine encode prompts into all spaces, shard by shard; those that the journal lists and that are whole are kept.

    Args:
        rows: the row ids to be encoded, without gaps.
        first_shard: number of the shard that begins with the first of them.

    Returns:
        The shards of each space in row order.

    Raises:
        EncoderError, StoreError: see `imprompt.indexer.engine.Engine.encode`.
    """
    listed = journal.shards()
    names = [space.spec.space for space in spaces]
    shards = {
        number: range(start, min(start + shard_rows, rows.stop))
        for number, start in enumerate(range(rows.start, rows.stop, shard_rows), first_shard)
    }
    with progress.start(
        f"Encoding with {' and '.join(space.spec.name for space in spaces)}", len(rows)
    ) as task:
        wanted = []
        for number, of_shard in shards.items():
            lacking = tuple(
                name for name in names if not _is_whole(staging, listed.get((name, number)))
            )
            if lacking:
                wanted.append(WantedShard(number, of_shard, lacking))
            else:
                task.advance(len(of_shard))
        left = {shard.number: len(shard.spaces) for shard in wanted}
        for done in engine.encode(staging, spaces, wanted) if wanted else ():
            journal.append(done)
            left[done.number] -= 1
            if left[done.number] == 0:
                task.advance(len(shards[done.number]))
    listed = journal.shards()
    return {name: [listed[name, number] for number in shards] for name in names}


def _is_whole(staging: Path, shard: ShardDone | None) -> bool:
    return shard is not None and shard_is_whole(staging, shard.record)


def _read(
    staged: StagedPrompts,
    place: int,
    source: CorpusSource,
    rules: Rules,
    engine: Engine,
    *,
    progress: Progress,
) -> CleaningStats:
    state = staged.state(place)
    tally = msgspec.convert(state.notes, CleaningStats)
    if state.finished:
        return tally
    with progress.start(f"Reading {source.name}", None) as task:
        task.advance(tally.read)
        for batch in engine.clean(source, rules, start=state.next_start):
            tally = tally.joined(batch.tally)
            state = CorpusState(batch.next_start, False, msgspec.to_builtins(tally))
            staged.add(batch.kept, corpus=place, state=state)
            task.advance(batch.tally.read)
    staged.add(
        [], corpus=place, state=CorpusState(state.next_start, True, msgspec.to_builtins(tally))
    )
    return tally


def prompts_digest(staging: Path) -> str:
    """The digest of the rows that were numbered; see `imprompt.store.prompts.DuckPrompts.digest`."""
    with DuckPrompts(staging / layout.PROMPTS) as prompts:
        return prompts.digest()


def holds_rows(staging: Path, numbered: Numbered) -> bool:
    """Whether `prompts.duckdb` is there, whole, and holds the rows that were numbered."""
    try:
        with DuckPrompts(staging / layout.PROMPTS) as prompts:
            return (len(prompts), prompts.digest()) == (numbered.rows, numbered.rows_digest)
    except Checksum:
        return False


def _nothing_usable(
    sources: Sequence[CorpusSource], tallies: Sequence[CleaningStats]
) -> CorpusError:
    counts = funnel(tallies, kept=0, folded={})
    reasons = ", ".join(
        f"{count:,} {reason}" for reason, count in counts.items() if reason not in (READ, KEPT)
    )
    first = next((row for tally in tallies for row in tally.examples), None)
    where = f"; the first is {first.source}, {first.source_key}" if first is not None else ""
    names = ", ".join(source.name for source in sources)
    return CorpusError(
        f"{names}: no usable prompt in {counts['read']:,} rows ({reasons or 'none was there'}{where}).",
        hint="Check the file and, for a table, --column.",
    )
