"""Who cleans rows and encodes shards: this process, or machines that an engine stands for.

All else of a build is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imprompt.core.errors import EncoderError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.lookahead import ahead
from imprompt.core.protocols import CorpusSource, TextEncoder
from imprompt.core.values import CorpusBatch, EncoderSpec
from imprompt.encoders.memory import FREED, own_bytes
from imprompt.indexer.cleaning_rules import Rules
from imprompt.indexer.cleaning_stats import CleaningStats
from imprompt.indexer.journal import ShardDone
from imprompt.indexer.provenance import provenance_of
from imprompt.store import layout
from imprompt.store.prompts import DuckPrompts
from imprompt.store.shards import write_shard
from imprompt.store.staged_prompts import CleanPrompt

READ_ROWS = 16_384
"""Rows that are read, cleaned and committed together; what a kill costs at most."""


@dataclass(frozen=True, slots=True)
class BuildSpace:
    """A vector space of a build;

    `texts` gives its encoder and is called only where there is something to encode.
    """

    spec: EncoderSpec
    texts: Callable[[], TextEncoder]


@dataclass(frozen=True, slots=True)
class CleanedBatch:
    """Consecutive rows of one source, from row `start` up to `next_start`: the prompts that the rules keep, and a tally of all."""

    start: int
    next_start: int
    kept: list[CleanPrompt]
    tally: CleaningStats


@dataclass(frozen=True, slots=True)
class WantedShard:
    """Shard `number` holds these rows; `spaces` are those that have no whole file of it yet."""

    number: int
    rows: range
    spaces: tuple[str, ...]


class Engine(Protocol):
    """Does the two works of a build that need no order and no memory of what was before."""

    def clean(self, source: CorpusSource, rules: Rules, *, start: int) -> Iterator[CleanedBatch]:
        """The rows of a source from row `start` on, in their order and without a gap, `READ_ROWS` a batch.

        Raises:
            CorpusError: the source cannot be read.
        """
        ...

    def encode(
        self, staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
    ) -> Iterator[ShardDone]:
        """Every wanted shard in every space that wants it, once, in any order; each is whole in `staging` when it comes.

        Raises:
            EncoderError: an encoder gives vectors of another shape than its spec says, or NaN.
            StoreError: it gives a row of zeros.
            StorageFull: the disk is full or may not be written.
        """
        ...


class LocalEngine:
    """This process, one shard after the other.

    Its memory does not grow with the rows that it encodes (see
    `imprompt.encoders.memory.FreedMemory`), so what it took behind the batches of the first shard
    shows what it needs, and `announce` is told where that is more than the budget.

    Args:
        memory_budget_bytes: None for a build that has no bound.
        announce: takes a line for the user.
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
        """As `Engine.encode`. A shard is made in every space before the next one, so that spaces which share a network can share
        what it says of the texts; the next one's are read and tokenized meanwhile."""
        for place, (shard, texts) in enumerate(ahead(_tokenized(staging, spaces, wanted))):
            yield from encode_shard(staging, spaces, shard, texts)
            if place == 0:
                self._compare(max(FREED.most_bytes, own_bytes()))

    def _compare(self, most: int) -> None:
        if self._memory_budget_bytes is not None and most > self._memory_budget_bytes:
            self._announce(
                f"Encoding takes {most / 1e6:,.0f} MB of memory, more than the budget of "
                f"{self._memory_budget_bytes / 1e6:,.0f} MB, which only the index keeps to."
            )


def _tokenized(
    staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
) -> Iterator[tuple[WantedShard, Sequence[str]]]:
    """Each shard with its texts, whose tokens the encoders remember: they were asked for their lengths."""
    with DuckPrompts(staging / layout.PROMPTS) as prompts:
        for shard in wanted:
            texts = prompts.embedded_texts(shard.rows.start, shard.rows.stop)
            for space in spaces:
                if space.spec.space in shard.spaces:
                    space.texts().token_lengths(texts)
            yield shard, texts


def clean_batch(batch: CorpusBatch, rules: Rules, *, start: int) -> CleanedBatch:
    """What the rules make of the rows of a source from row `start` on."""
    kept, dropped = rules.apply(batch.prompts)
    return CleanedBatch(start, batch.next_start, kept, CleaningStats.of(batch, dropped))


def encode_shard(
    folder: Path, spaces: Sequence[BuildSpace], shard: WantedShard, texts: Sequence[str]
) -> Iterator[ShardDone]:
    """Encode one shard into the spaces that want it and write it below `folder`; a function of the texts and the encoders alone."""
    for space in spaces:
        spec = space.spec
        if spec.space not in shard.spaces:
            continue
        encoder = space.texts()
        vectors = encoder.encode(texts)
        if vectors.shape != (len(texts), spec.dim):
            raise EncoderError(
                f"{spec.name} gave vectors of shape {vectors.shape}, not {(len(texts), spec.dim)}."
            )
        truncated = int((encoder.token_lengths(texts) > spec.max_tokens).sum())
        file = layout.shard_file(spec.space, shard.number)
        record = write_shard(folder, file, vectors, provenance=provenance_of(encoder))
        yield ShardDone(space=spec.space, number=shard.number, truncated=truncated, record=record)
