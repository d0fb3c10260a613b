"""A build on a Ray cluster: its actors clean rows and encode shards, all else happens here.

A task on this machine reads the corpora and `prompts.duckdb`, so no other machine has to see them.
The shards come back through Ray's object store, or through a folder or bucket that all machines
reach; here they are checked, put into the staging folder and journaled, under the write lock of the
build. So a build can be started on one engine and finished on another.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from imprompt.core.errors import Checksum, WorkerDiffers
from imprompt.core.protocols import CorpusSource
from imprompt.core.values import CorpusBatch, EncoderSpec
from imprompt.encoders.registry import load_encoder, output_encoder
from imprompt.indexer.build import spaces_of, weight_differences
from imprompt.indexer.cleaning_rules import Cleaning, Rules, UnsafeWords, resolve_cleaning
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
ShardTexts = tuple[WantedShard, list[str]]
ShardFiles = list[tuple[ShardDone, bytes | None]]
"""A shard in each of its spaces, with the file's content if it does not pass through a URL."""


@dataclass(frozen=True, slots=True)
class NamedSpaces:
    """A picklable factory of the spaces of a build, from its encoders' names; fetches nothing."""

    encoder: str
    also: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"

    def __call__(self) -> Sequence[BuildSpace]:
        load = partial(load_encoder, device=self.device, dtype=self.dtype, offline=True)
        encoder, *others = map(load, (self.encoder, *self.also))
        return spaces_of(encoder, [output_encoder(encoder, device=self.device)], also=others)


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a source, after its last batch, at row `start`."""

    start: int


class RayEngine:
    """An `imprompt.indexer.engine.Engine` on a Ray cluster.

    Args:
        cluster: from `imprompt.indexer.ray_session.ray_cluster`.
        make_spaces: makes the spaces of the build in an actor; picklable.
        shards: URL that shards pass through, from `imprompt.store.object_store.checked_url`; None
            sends them through Ray's object store.
    """

    def __init__(
        self, cluster: RayCluster, make_spaces: MakeSpaces, *, shards: str | None = None
    ) -> None:
        self._cluster = cluster
        self._make_spaces = make_spaces
        self._shards = shards

    def clean(self, source: CorpusSource, rules: Rules, *, start: int) -> Iterator[CleanedBatch]:
        """Do as `Engine.clean` says.

        Raises:
            ClusterError: the cluster keeps losing its work.
            WorkerDiffers: a worker's packages, code or weights differ from this machine's.
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
                    return  # a batch before it was lost
                if isinstance(batch, _End):
                    finished = True
                    return
                start = batch.next_start
                yield batch

        yield from Rounds(begin)

    def encode(
        self, staging: Path, spaces: Sequence[BuildSpace], wanted: Sequence[WantedShard]
    ) -> Iterator[ShardDone]:
        """Do as `Engine.encode` says.

        Raises:
            ClusterError: the cluster keeps losing its work.
            WorkerDiffers: a worker's packages, code or weights differ from this machine's.
        """
        left = {shard.number: shard for shard in wanted}
        plan = staging.name
        remote = None if self._shards is None else ObjectStore(self._shards, plan)
        make = partial(
            _ShardEncoder, self._make_spaces, [space.spec for space in spaces], self._shards, plan
        )

        def begin() -> Iterator[ShardDone] | None:
            return encoded() if left else None

        def encoded() -> Iterator[ShardDone]:
            items = partial(_read_shards, staging, list(left.values()))
            for files in stream(items, make, pool=self._cluster.devices):
                for shard, content in files:
                    chunks = (
                        remote.chunks(shard.record)
                        if remote is not None and content is None
                        else [content or b""]
                    )
                    try:
                        keep_shard(staging, shard.record, chunks)
                    except Checksum:
                        break  # encoded again in the next round
                else:
                    del left[files[0][0].number]
                    yield from (shard for shard, _ in files)

        yield from Rounds(begin)
        if remote is not None:
            remote.clear()


def _read_rows(
    source: CorpusSource, size: int, start: int
) -> Iterator[tuple[int, CorpusBatch] | _End]:
    for batch in source.batches(size, start=start):
        yield start, batch
        start = batch.next_start
    yield _End(start)


def _read_shards(staging: Path, wanted: Sequence[WantedShard]) -> Iterator[ShardTexts]:
    with DuckPrompts(staging / layout.PROMPTS) as prompts:
        for shard in wanted:
            yield shard, prompts.embedded_texts(shard.rows.start, shard.rows.stop)


class _Cleaner:
    """Cleans batches of rows, in an actor.

    Raises:
        WorkerDiffers: the language detector here is of another version.
    """

    def __init__(self, cleaning: Cleaning, words: UnsafeWords, make_spaces: MakeSpaces) -> None:
        spaces = cache(make_spaces)  # called only if tokens are limited
        if resolve_cleaning(cleaning, words) != cleaning:
            raise WorkerDiffers(
                f"{socket.gethostname()} would clean differently from this machine, "
                f"which has {cleaning.detector}.",
                hint="Install the same packages on every machine of the cluster.",
            )
        self._rules = Rules(cleaning, words, lambda texts: spaces()[0].texts().token_lengths(texts))

    def __call__(self, item: tuple[int, CorpusBatch] | _End) -> CleanedBatch | _End:
        if isinstance(item, _End):
            return item
        start, batch = item
        return clean_batch(batch, self._rules, start=start)


class _ShardEncoder:
    """Encodes shards in each of their spaces, in an actor.

    Raises:
        WorkerDiffers: the encoders here differ from those of the plan.
    """

    def __init__(
        self, make_spaces: MakeSpaces, specs: Sequence[EncoderSpec], shards: str | None, plan: str
    ) -> None:
        self._spaces = make_spaces()
        local = [space.spec for space in self._spaces]
        if local != list(specs):
            raise WorkerDiffers(
                f"{socket.gethostname()} has other encoders than this machine"
                f"{weight_differences(specs, local)}.",
                hint="Install the same weights on every machine of the cluster.",
            )
        self._remote = None if shards is None else ObjectStore(shards, plan)

    def __call__(self, item: ShardTexts) -> ShardFiles:
        shard, texts = item
        files: ShardFiles = []
        with tempfile.TemporaryDirectory(prefix="imprompt-") as name:
            folder = Path(name)
            for encoded in encode_shard(folder, self._spaces, shard, texts):
                if self._remote is None:
                    files.append((encoded, (folder / encoded.record.file).read_bytes()))
                else:
                    self._remote.put(folder, encoded.record)
                    files.append((encoded, None))
        return files
