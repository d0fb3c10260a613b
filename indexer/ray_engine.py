"""A build on a cluster of Ray: rows are cleaned and shards encoded by its actors, everything else happens here.

The corpora and `prompts.duckdb` are read by a task on this machine, so that no other needs to see
them. The shards come back through Ray's object store, or through a folder or bucket that all
machines reach; here they are checked, put into the staging folder and journaled, under the write
lock of the build. So a build may be begun on one engine and ended on another.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imprompt.core.errors import Checksum, WorkerDiffers
from imprompt.core.protocols import CorpusSource
from imprompt.core.values import CorpusBatch, EncoderSpec
from imprompt.encoders.registry import load_encoder, output_encoder
from imprompt.indexer.build import other_files, spaces_of
from imprompt.indexer.cleaning_rules import Cleaning, Rules, UnsafeWords, checked
from imprompt.indexer.engine import (
    READ_ROWS,
    BuildSpace,
    CleanedBatch,
    WantedShard,
    clean_batch,
    encode_shard,
)
from imprompt.indexer.journal import ShardDone
from imprompt.indexer.ray_session import RayCluster
from imprompt.indexer.ray_stream import Rounds, stream
from imprompt.store import layout
from imprompt.store.object_store import ObjectStore
from imprompt.store.prompts import DuckPrompts
from imprompt.store.shards import keep_shard

MakeSpaces = Callable[[], Sequence[BuildSpace]]
Shard = tuple[WantedShard, list[str]]
Made = list[tuple[ShardDone, bytes | None]]


@dataclass(frozen=True, slots=True)
class NamedSpaces:
    """Makes the spaces of a build from its encoders' names, on whatever machine; it fetches nothing."""

    encoder: str
    also: tuple[str, ...] = ()
    device: str = "auto"

    def __call__(self) -> Sequence[BuildSpace]:
        pair = load_encoder(self.encoder, device=self.device, offline=True)
        others = [load_encoder(name, device=self.device, offline=True) for name in self.also]
        return spaces_of(pair, [output_encoder(pair, device=self.device)], also=others)


@dataclass(frozen=True, slots=True)
class _End:
    """Behind the last batch of a source, at row `start`."""

    start: int


class RayEngine:
    """An `imprompt.indexer.engine.Engine`.

    Args:
        cluster: as `imprompt.indexer.ray_session.ray_cluster` gave it.
        make_spaces: makes the spaces of the build in an actor; picklable.
        shards: where the shards pass, as `imprompt.store.object_store.checked_url` gave it; None
            sends them through the object store.
    """

    def __init__(
        self, cluster: RayCluster, make_spaces: MakeSpaces, *, shards: str | None = None
    ) -> None:
        self._cluster = cluster
        self._make_spaces = make_spaces
        self._shards = shards

    def clean(self, source: CorpusSource, rules: Rules, *, start: int) -> Iterator[CleanedBatch]:
        """As `Engine.clean`.

        Raises:
            ClusterError: the cluster loses its work again and again, or its workers are not like
                this machine.
        """
        make = partial(_Cleaner, rules.cleaning, rules.words, self._make_spaces)
        finished = False

        def begin() -> Iterator[CleanedBatch] | None:
            return None if finished else in_order()

        def in_order() -> Iterator[CleanedBatch]:
            nonlocal start, finished
            for batch in stream(
                partial(_read_rows, source, READ_ROWS, start), make, pool=self._cluster.cleaning
            ):
                if batch.start != start:
                    return  # the one before was lost
                if isinstance(batch, _End):
                    finished = True
                    return
                start = batch.next_start
                yield batch

        yield from Rounds(begin)

    def encode(
        self, staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
    ) -> Iterator[ShardDone]:
        """As `Engine.encode`.

        Raises:
            ClusterError: the cluster loses its work again and again, or its workers are not like
                this machine.
        """
        left = {shard.number: shard for shard in wanted}
        plan = staging.name
        depot = None if self._shards is None else ObjectStore(self._shards, plan)
        make = partial(
            _ShardEncoder, self._make_spaces, [space.spec for space in spaces], self._shards, plan
        )

        def begin() -> Iterator[ShardDone] | None:
            return kept() if left else None

        def kept() -> Iterator[ShardDone]:
            for made in stream(
                partial(_read_shards, staging, list(left.values())),
                make,
                pool=self._cluster.devices,
            ):
                for done, content in made:
                    chunks = (
                        depot.chunks(done.record)
                        if depot is not None and content is None
                        else [content or b""]
                    )
                    try:
                        keep_shard(staging, done.record, chunks)
                    except Checksum:
                        break  # it is made again
                else:
                    del left[made[0][0].number]
                    yield from (done for done, _ in made)

        yield from Rounds(begin)
        if depot is not None:
            depot.clear()


def _read_rows(
    source: CorpusSource, size: int, start: int
) -> Iterator[tuple[int, CorpusBatch] | _End]:
    for batch in source.batches(size, start=start):
        yield start, batch
        start = batch.next_start
    yield _End(start)


def _read_shards(staging: Path, wanted: Sequence[WantedShard]) -> Iterator[Shard]:
    with DuckPrompts(staging / layout.PROMPTS) as prompts:
        for shard in wanted:
            yield shard, prompts.embedded_texts(shard.rows.start, shard.rows.stop)


class _Cleaner:
    """Cleans batches of rows, in an actor.

    Raises:
        WorkerDiffers: the language detector here is another one.
    """

    def __init__(self, cleaning: Cleaning, words: UnsafeWords, make_spaces: MakeSpaces) -> None:
        spaces: list[BuildSpace] = []

        def first() -> BuildSpace:
            spaces.extend(() if spaces else make_spaces())  # only where tokens are limited
            return spaces[0]

        if checked(cleaning, words) != cleaning:
            raise WorkerDiffers(
                f"{socket.gethostname()} would clean otherwise than this machine, which has {cleaning.detector}.",
                hint="Install the same packages on every machine of the cluster.",
            )
        self._rules = Rules(cleaning, words, lambda texts: first().texts().token_lengths(texts))

    def __call__(self, item: tuple[int, CorpusBatch] | _End) -> CleanedBatch | _End:
        if isinstance(item, _End):
            return item
        start, batch = item
        return clean_batch(batch, self._rules, start=start)


class _ShardEncoder:
    """Encodes shards into all spaces that want them, in an actor.

    Raises:
        WorkerDiffers: the encoders here are not those of the plan.
    """

    def __init__(
        self, make_spaces: MakeSpaces, specs: Sequence[EncoderSpec], shards: str | None, plan: str
    ) -> None:
        self._spaces = make_spaces()
        here = [space.spec for space in self._spaces]
        if here != list(specs):
            raise WorkerDiffers(
                f"{socket.gethostname()} has other encoders than this machine{other_files(specs, here)}.",
                hint="Install the same weights on every machine of the cluster.",
            )
        self._depot = None if shards is None else ObjectStore(shards, plan)

    def __call__(self, item: Shard) -> Made:
        shard, texts = item
        made: Made = []
        with tempfile.TemporaryDirectory(prefix="imprompt-") as name:
            folder = Path(name)
            for done in encode_shard(folder, self._spaces, shard, texts):
                if self._depot is None:
                    made.append((done, (folder / done.record.file).read_bytes()))
                else:
                    self._depot.put(folder, done.record)
                    made.append((done, None))
        return made
