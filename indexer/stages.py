"""The stages of a build between its plan and its index: read, clean, fold, number, encode. Each goes on where it was broken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.errors import Checksum, CorpusError, EncoderError
from core.protocols import CorpusSource, Progress, TextEncoder
from core.values import EncoderSpec
from indexer.cleaning import DUPLICATE, KEPT, NEAR_DUPLICATE, READ, Tally, funnel
from indexer.folding import fold_duplicates, write_dropped
from indexer.journal import Journal, Numbered, ShardDone
from indexer.provenance import provenance_of
from indexer.rules import Rules
from store import layout
from store.prompts import DuckPrompts
from store.shards import shard_is_whole, write_shard
from store.staged_prompts import CorpusState, StagedPrompts

READ_ROWS = 16_384
"""Rows that are read, cleaned and committed together; what a kill costs at most."""


def number_prompts(
    staging: Path, sources: Sequence[CorpusSource], rules: Rules, journal: Journal, *, base: Path | None = None, progress: Progress
) -> Numbered:
    """Read all sources, leave out what the rules say, fold duplicates, number the rest in order of first appearance, and write
    `prompts.duckdb` and, beside it, examples of what was left out.

    Args:
        base: a `prompts.duckdb` whose rows come before those of the sources and keep their ids. The funnel does not count them
            as read.

    Raises:
        CorpusError: a source cannot be read, or no source has a usable prompt.
        StorageFull: the disk is full or may not be written.
    """
    done = journal.numbered()
    if done is not None and holds_rows(staging, done.rows_digest):
        return done
    (staging / layout.PROMPTS).unlink(missing_ok=True)
    with StagedPrompts(staging) as staged:
        if base is not None:
            staged.settle(base)
        tallies = [_read(staged, place, source, rules, progress=progress) for place, source in enumerate(sources)]
        if all(tally.read == sum(tally.reasons.values()) for tally in tallies):
            raise _nothing_usable(sources, tallies)
        folding = fold_duplicates(staged, rules.cleaning, progress=progress)
        with progress.start("Numbering", None):
            numbered = staged.number(folding.stands_for, mark=rules.cleaning.mark_near)
    dropped = [*(row for tally in tallies for rows in tally.dropped.values() for row in rows), *folding.examples]
    write_dropped(staging / layout.DROPPED, dropped)
    folded = {DUPLICATE: numbered.duplicates, **({NEAR_DUPLICATE: numbered.folded} if numbered.folded else {})}
    entry = Numbered(
        rows=numbered.rows,
        rows_digest=prompts_digest(staging),
        funnel=funnel(tallies, kept=numbered.rows, folded=folded),
        rejected=[row for tally in tallies for row in tally.examples],
    )
    journal.append(entry)
    return entry


@dataclass(frozen=True, slots=True)
class Space:
    """A vector space of a build; `texts` gives its encoder and is called only where there is something to encode."""

    spec: EncoderSpec
    texts: Callable[[], TextEncoder]


def encode_spaces(
    staging: Path,
    spaces: Sequence[Space],
    journal: Journal,
    *,
    rows: range,
    first_shard: int = 0,
    shard_rows: int,
    progress: Progress,
) -> dict[str, list[ShardDone]]:
    """Encode prompts into all spaces, shard by shard; those that the journal lists and that are whole are kept.

    A shard is made in every space before the next one, so that spaces which share a network can share what it says of the texts.

    Args:
        rows: the row ids to be encoded, without gaps.
        first_shard: number of the shard that begins with the first of them.

    Returns:
        The shards of each space in row order.

    Raises:
        EncoderError: an encoder gives vectors of another shape than its spec says, or NaN.
        StoreError: it gives a row of zeros.
    """
    listed = journal.shards()
    done: dict[str, list[ShardDone]] = {space.spec.space: [] for space in spaces}
    label = f"Encoding with {' and '.join(space.spec.name for space in spaces)}"
    with DuckPrompts(staging / layout.PROMPTS) as prompts, progress.start(label, len(rows)) as task:
        for number, start in enumerate(range(rows.start, rows.stop, shard_rows), first_shard):
            stop = min(start + shard_rows, rows.stop)
            wanted: list[str] = []
            for space in spaces:
                shard = listed.get((space.spec.space, number))
                if shard is None or not shard_is_whole(staging, shard.record):
                    wanted = wanted or prompts.embedded_texts(start, stop)
                    shard = encode_shard(staging, space.spec, space.texts(), number, wanted)
                    journal.append(shard)
                done[space.spec.space].append(shard)
            task.advance(stop - start)
    return done


def encode_shard(staging: Path, spec: EncoderSpec, encoder: TextEncoder, number: int, texts: Sequence[str]) -> ShardDone:
    """Encode one shard and write it; a function of the texts and the encoder alone."""
    vectors = encoder.encode(texts)
    if vectors.shape != (len(texts), spec.dim):
        raise EncoderError(f"{spec.name} gave vectors of shape {vectors.shape}, not {(len(texts), spec.dim)}.")
    truncated = int((encoder.token_lengths(texts) > spec.max_tokens).sum())
    file = layout.shard_file(spec.space, number)
    record = write_shard(staging, file, vectors, provenance=provenance_of(encoder))
    return ShardDone(space=spec.space, number=number, truncated=truncated, record=record)


def _read(staged: StagedPrompts, place: int, source: CorpusSource, rules: Rules, *, progress: Progress) -> Tally:
    state = staged.state(place)
    tally = msgspec.convert(state.notes, Tally)
    if state.finished:
        return tally
    with progress.start(f"Reading {source.name}", None) as task:
        task.advance(tally.read)
        for batch in source.batches(READ_ROWS, start=state.next_start):
            kept, dropped = rules.apply(batch.prompts)
            tally = tally.with_batch(batch, dropped)
            state = CorpusState(batch.next_start, False, msgspec.to_builtins(tally))
            staged.add(kept, corpus=place, state=state)
            task.advance(len(batch.prompts) + len(batch.rejected))
    staged.add([], corpus=place, state=CorpusState(state.next_start, True, msgspec.to_builtins(tally)))
    return tally


def prompts_digest(staging: Path) -> str:
    """The digest of the rows that were numbered; see `store.prompts.DuckPrompts.digest`."""
    with DuckPrompts(staging / layout.PROMPTS) as prompts:
        return prompts.digest()


def holds_rows(staging: Path, rows_digest: str) -> bool:
    """Whether `prompts.duckdb` is there, whole, and holds the rows of that digest."""
    try:
        return prompts_digest(staging) == rows_digest
    except Checksum:
        return False


def _nothing_usable(sources: Sequence[CorpusSource], tallies: Sequence[Tally]) -> CorpusError:
    counts = funnel(tallies, kept=0, folded={})
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if reason not in (READ, KEPT))
    first = next((row for tally in tallies for row in tally.examples), None)
    where = f"; the first is {first.source}, {first.source_key}" if first is not None else ""
    names = ", ".join(source.name for source in sources)
    return CorpusError(
        f"{names}: no usable prompt in {counts['read']:,} rows ({reasons or 'none was there'}{where}).",
        hint="Check the file and, for a table, --column.",
    )
