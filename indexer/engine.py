"""The two steps of a build that other machines can do: cleaning rows and encoding shards.

An `Engine` does them, in this process (`LocalEngine`) or on a cluster
(`imprompt.indexer.ray_engine`); everything else of a build is the same for all engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imprompt.core.errors import EncoderError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.lookahead import ahead
from imprompt.core.protocols import CorpusSource, Progress, TextEncoder
from imprompt.core.text import duration_text
from imprompt.core.values import CorpusBatch, EncoderSpec
from imprompt.encoders.batches import seconds_each
from imprompt.encoders.memory import FREED, own_bytes
from imprompt.indexer.cleaning_rules import Rules
from imprompt.indexer.cleaning_stats import CleaningStats
from imprompt.indexer.journal import Journal, ShardDone
from imprompt.indexer.provenance import provenance_of
from imprompt.store import layout
from imprompt.store.prompts import DuckPrompts
from imprompt.store.shards import shard_is_whole, write_shard
from imprompt.store.staged_prompts import CleanPrompt

READ_ROWS = 16_384
"""Rows that are read, cleaned and committed together: the most that a kill can cost."""

_ANNOUNCED_ROWS = 2_000
_ANNOUNCED_S = 60


@dataclass(frozen=True, slots=True)
class BuildSpace:
    """A vector space of a build; `texts` loads its encoder when there is something to encode."""

    spec: EncoderSpec
    texts: Callable[[], TextEncoder]


@dataclass(frozen=True, slots=True)
class CleanedBatch:
    """Rows `start` up to `next_start` of a source: the prompts to keep, and counts of all rows."""

    start: int
    next_start: int
    kept: list[CleanPrompt]
    stats: CleaningStats


@dataclass(frozen=True, slots=True)
class WantedShard:
    """A shard to encode: its number, its rows, and the spaces that lack an intact file of it."""

    number: int
    rows: range
    spaces: tuple[str, ...]


class Engine(Protocol):
    """Cleans rows and encodes shards, the steps that do not depend on earlier results."""

    def clean(self, source: CorpusSource, rules: Rules, *, start: int) -> Iterator[CleanedBatch]:
        """Yield the cleaned rows of a source from row `start` on, in order, `READ_ROWS` a batch.

        Raises:
            CorpusError: the source cannot be read.
        """
        ...

    def encode(
        self, staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
    ) -> Iterator[ShardDone]:
        """Yield each wanted shard once for each of its spaces, in any order.

        A shard is complete in `staging` when it is yielded.

        Raises:
            EncoderError: an encoder returns vectors of another shape than its spec's, or NaN.
            StoreError: it returns a row of zeros.
            StorageFull: the disk is full or read-only.
        """
        ...


class LocalEngine:
    """An engine in this process, one shard after the other.

    Its memory does not grow with the rows that it encodes (see
    `imprompt.encoders.memory.FreedMemory`), so the first shard shows what it needs.

    Args:
        memory_budget_bytes: None for a build without a limit.
        announce: takes a line for the user if encoding exceeds the budget.
    """

    def __init__(
        self, *, memory_budget_bytes: int | None = None, announce: Announce = silent
    ) -> None:
        self._memory_budget_bytes = memory_budget_bytes
        self._announce = announce

    def clean(self, source: CorpusSource, rules: Rules, *, start: int) -> Iterator[CleanedBatch]:
        for batch in source.batches(READ_ROWS, start=start):
            yield clean_batch(batch, rules, start=start)
            start = batch.next_start

    def encode(
        self, staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
    ) -> Iterator[ShardDone]:
        """Implement `Engine.encode`: encode a shard in all its spaces before the next one.

        So spaces that share a network can share its pass over the texts. The next shard's texts are
        read and tokenized meanwhile.
        """
        self._announce_duration(staging, spaces, wanted)
        for i, (shard, texts) in enumerate(ahead(_tokenized(staging, spaces, wanted))):
            yield from encode_shard(staging, spaces, shard, texts)
            if i == 0:
                self._compare(max(FREED.most_bytes, own_bytes()))

    def _announce_duration(
        self, staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
    ) -> None:
        """Announce how long encoding will take on this machine, if it is more than a minute.

        It is measured before any shard is tokenized, so that no encoder loses cached tokens.
        """
        rows = sum(len(shard.rows) for shard in wanted)
        if rows < _ANNOUNCED_ROWS:
            return
        with DuckPrompts(staging / layout.PROMPTS) as prompts:
            texts = prompts.embedded_texts(wanted[0].rows.start, wanted[0].rows.stop)
        towers = [space.texts() for space in spaces if space.spec.space in wanted[0].spaces]

        def encode(few: Sequence[str]) -> None:
            for tower in towers:
                tower.encode(few)

        seconds = rows * seconds_each(encode, texts)
        if seconds > _ANNOUNCED_S:
            self._announce(
                f"Encoding {rows:,} prompts with {spaces[0].spec.name} takes about "
                f"{duration_text(seconds)} on this machine. Repeat the command to resume it if it "
                "is interrupted."
            )

    def _compare(self, used_bytes: int) -> None:
        if self._memory_budget_bytes is not None and used_bytes > self._memory_budget_bytes:
            self._announce(
                f"Encoding takes {used_bytes / 1e6:,.0f} MB of memory, more than the budget of "
                f"{self._memory_budget_bytes / 1e6:,.0f} MB, which applies to the index only."
            )


def _tokenized(
    staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
) -> Iterator[tuple[WantedShard, Sequence[str]]]:
    """Yield each shard with its texts; asking for their lengths makes the encoders cache tokens."""
    with DuckPrompts(staging / layout.PROMPTS) as prompts:
        for shard in wanted:
            texts = prompts.embedded_texts(shard.rows.start, shard.rows.stop)
            for space in spaces:
                if space.spec.space in shard.spaces:
                    space.texts().token_lengths(texts)
            yield shard, texts


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
    """Let an engine encode prompts in all spaces; intact shards that the journal lists are kept.

    Args:
        rows: the row ids to encode, without gaps.
        first_shard: number of the shard that begins with the first of them.

    Returns:
        The shards of each space in row order.

    Raises:
        EncoderError, StoreError: see `Engine.encode`.
    """
    names = [space.spec.space for space in spaces]
    shards = {
        number: range(start, min(start + shard_rows, rows.stop))
        for number, start in enumerate(range(rows.start, rows.stop, shard_rows), first_shard)
    }
    label = f"Encoding with {' and '.join(space.spec.name for space in spaces)}"
    with progress.start(label, len(rows)) as task:
        listed = journal.shards()
        wanted = []
        for number, shard_range in shards.items():
            lacking = tuple(
                name for name in names if not _is_whole(staging, listed.get((name, number)))
            )
            if lacking:
                wanted.append(WantedShard(number, shard_range, lacking))
            else:
                task.advance(len(shard_range))
        left = {shard.number: len(shard.spaces) for shard in wanted}
        for encoded in engine.encode(staging, spaces, wanted) if wanted else ():
            journal.append(encoded)
            left[encoded.number] -= 1
            if left[encoded.number] == 0:
                task.advance(len(shards[encoded.number]))
    listed = journal.shards()
    return {name: [listed[name, number] for number in shards] for name in names}


def _is_whole(staging: Path, shard: ShardDone | None) -> bool:
    return shard is not None and shard_is_whole(staging, shard.record)


def clean_batch(batch: CorpusBatch, rules: Rules, *, start: int) -> CleanedBatch:
    """Apply the rules to rows of a source that begin at row `start`."""
    kept, dropped = rules.apply(batch.prompts)
    return CleanedBatch(start, batch.next_start, kept, CleaningStats.of(batch, dropped))


def encode_shard(
    folder: Path, spaces: Sequence[BuildSpace], shard: WantedShard, texts: Sequence[str]
) -> Iterator[ShardDone]:
    """Encode a shard in each of its spaces, write it below `folder` and yield its records."""
    for space in spaces:
        spec = space.spec
        if spec.space not in shard.spaces:
            continue
        encoder = space.texts()
        vectors = encoder.encode(texts)
        if vectors.shape != (len(texts), spec.dim):
            raise EncoderError(
                f"{spec.name} returned vectors of shape {vectors.shape}, "
                f"not {(len(texts), spec.dim)}."
            )
        truncated = int((encoder.token_lengths(texts) > spec.max_tokens).sum())
        file = layout.shard_file(spec.space, shard.number)
        record = write_shard(folder, file, vectors, provenance=provenance_of(encoder))
        yield ShardDone(space=spec.space, number=shard.number, truncated=truncated, record=record)
