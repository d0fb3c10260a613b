"""From corpora to a published version.

The same call resumes itself, whenever it was broken off.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import Checksum, ConfigError, CorpusError, IndexDiffers
from imprompt.core.progress import Silent
from imprompt.core.protocols import CorpusSource, DualEncoder, Progress, TextEncoder
from imprompt.core.values import EncoderSpec, RejectedRow
from imprompt.indexer.build_plan import DEFAULT_SHARD_ROWS, BuildPlan, Plan
from imprompt.indexer.cleaning_rules import Cleaning, Rules, UnsafeWords, checked, read_unsafe_words
from imprompt.indexer.cleaning_stats import REMOVED, SEMANTIC_DUPLICATE, joined_funnel
from imprompt.indexer.corpus_checks import (
    refuse_changed_meanwhile,
    refuse_changed_since,
    refuse_unreadable,
)
from imprompt.indexer.engine import BuildSpace, Engine, LocalEngine
from imprompt.indexer.journal import Journal
from imprompt.indexer.numbering import encode_spaces, number_prompts
from imprompt.indexer.staging import begin, factory_for, finish, link_shards, manifest_of, published
from imprompt.store import layout
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import DEFAULT_BUDGET_BYTES, read_factory
from imprompt.store.index_version import IndexVersion
from imprompt.store.locking import write_lock
from imprompt.store.manifest import CorpusInfo, Manifest
from imprompt.store.publish import current_name

_SILENT = Silent()
_HERE = LocalEngine()
_GONE = {REMOVED: "removed from", SEMANTIC_DUPLICATE: "folded into others of"}


class SpaceEncoder(TextEncoder, Protocol):
    """A text encoder that knows its space."""

    @property
    def spec(self) -> EncoderSpec: ...


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build. `replace` allows another corpus or encoder than those of the index in place; the rest goes into the plan.

    `strict` ends the build where a row cannot be read; what is built is the same. `index_factory`
    is FAISS's factory string; None lets `imprompt.store.index_plan.plan_index` choose within
    `memory_budget_bytes`. `unsafe_words` is the list that `cleaning.unsafe` looks for, None the one
    that comes with imprompt. `dropped` is a file for examples of what was left out, and no part of
    the plan.
    """

    shard_rows: int = DEFAULT_SHARD_ROWS
    index_factory: str | None = None
    memory_budget_bytes: int = DEFAULT_BUDGET_BYTES
    seed: int = 0
    replace: bool = False
    strict: bool = False
    cleaning: Cleaning = field(default_factory=Cleaning)
    unsafe_words: UnsafeWords | None = None
    dropped: Path | None = None


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    `built` is False where the same plan was already published and there was nothing to do.
    `rejected` are the first ten rejected rows of each corpus, `truncated` the prompts that are
    longer than the first encoder reads, `encoded` the vectors that this call made (a resumed build
    makes fewer than it has), in `encode_s` of its `seconds`.
    """

    manifest: Manifest
    built: bool
    rejected: tuple[RejectedRow, ...] = ()
    truncated: int = 0
    encoded: int = 0
    encode_s: float = 0.0
    seconds: float = 0.0


def build_index(
    root: Path,
    sources: Sequence[CorpusSource],
    pair: DualEncoder,
    *,
    options: BuildOptions = BuildOptions(),
    progress: Progress = _SILENT,
    extra: Sequence[SpaceEncoder] = (),
    also: Sequence[DualEncoder] = (),
    engine: Engine = _HERE,
    gpu: Gpu | None = None,
) -> BuildReport:
    """Build an index below `root` and put it in service; until then the one in place answers.

    Args:
        root: of the index; created where it is missing.
        sources: in the order in which their rows are numbered.
        pair: its text tower encodes the prompts; its space is the one that is searched.
        extra: further encoders whose vectors of every prompt are stored, each in a space of its
            own.
        also: the same for the text towers of pairs.
        engine: cleans and encodes; the plan and the rows do not depend on it, and one may end what
            another began.
        gpu: where the index is made, None for the processor. Encoders have devices of their own.

    Raises:
        BuildLocked: another process is writing this index.
        IndexDiffers: the index in place has another corpus or encoder, and `options.replace` is not
            set.
        CorpusError: a source cannot be read, changed since a build of it was broken off or while it
            was read, has a row that cannot be read where `options.strict` is set, or none has a
            usable prompt; nothing is published.
        StorageFull: the disk is full or may not be written.
    """
    began = time.monotonic()
    spaces = spaces_of(pair, extra, also=also)
    with write_lock(root):
        if options.strict:
            refuse_unreadable(sources, progress=progress)
        plan = make_plan(
            sources, [space.spec for space in spaces], options=options, progress=progress
        )
        if not options.replace:
            refuse_other(root, plan)
        there = published(root, plan, progress=progress)
        if there is not None:
            return BuildReport(there, built=False, seconds=time.monotonic() - began)
        refuse_changed_since(root, plan, replace=options.replace)
        return carry_out(
            plan,
            root,
            sources,
            spaces,
            options,
            engine=engine,
            gpu=gpu,
            began=began,
            progress=progress,
        )


def spaces_of(
    pair: DualEncoder, extra: Sequence[SpaceEncoder], *, also: Sequence[DualEncoder] = ()
) -> list[BuildSpace]:
    """The spaces of a build; the first is that of the pair's text tower, loaded when needed, as those of `also` are."""

    def space_of(encoder: SpaceEncoder) -> BuildSpace:
        return BuildSpace(encoder.spec, lambda: encoder)

    def tower_of(pair: DualEncoder) -> BuildSpace:
        return BuildSpace(pair.spec, lambda: pair.texts)

    return [tower_of(pair), *map(space_of, extra), *map(tower_of, also)]


def corpus_info(source: CorpusSource) -> CorpusInfo:
    """What plan and manifest say of a source; reads all of it.

    Raises:
        CorpusError: it cannot be read.
    """
    return CorpusInfo(source.name, source.fingerprint(), source.synthetic, source.origin)


def make_plan(
    sources: Sequence[CorpusSource],
    encoders: Sequence[EncoderSpec],
    *,
    options: BuildOptions,
    progress: Progress = _SILENT,
) -> BuildPlan:
    """What `build_index` is going to do.

    Raises:
        ConfigError: no source, two encoders of one space, fewer than one row in a shard, a factory
            string that is not known, or a cleaning that cannot be done.
        CorpusError: a source cannot be read.
    """
    if not sources:
        raise ConfigError("There is no corpus to build from.", hint="Name one with --corpus.")
    if len({spec.space for spec in encoders}) != len(encoders):
        raise ConfigError(
            f"Two of these encoders share a space: {', '.join(spec.space for spec in encoders)}."
        )
    if options.shard_rows < 1:
        raise ConfigError(
            f"A shard of {options.shard_rows} rows is too small.", hint="It has at least 1."
        )
    if options.index_factory is not None:
        read_factory(options.index_factory, dim=encoders[0].dim)  # before hours of encoding
    corpora: list[CorpusInfo] = []
    with progress.start("Fingerprinting", len(sources)) as task:
        for source in sources:
            corpora.append(corpus_info(source))
            task.advance(1)
    return BuildPlan(
        corpora=corpora,
        cleaning=checked(options.cleaning, options.unsafe_words or read_unsafe_words()),
        encoders=list(encoders),
        shard_rows=options.shard_rows,
        index_factory=options.index_factory,
        memory_budget_bytes=options.memory_budget_bytes,
        seed=options.seed,
    )


def refuse_other(root: Path, plan: BuildPlan) -> None:
    """Raise `IndexDiffers` where the index in service has another corpus or encoder than the plan, or prompts were taken out of it.

    A damaged index may be replaced, and so may one of the same content under another name.

    Raises:
        IndexDiffers: see above; the message names both.
        FormatVersion: the index in service is of a newer format.
    """
    try:
        name = current_name(root)
        manifest = None if name is None else manifest_of(root, name)
    except Checksum:
        return
    if manifest is None:
        return
    if _identity(manifest.corpus, manifest.encoders) == _identity(plan.corpora, plan.encoders):
        if gone := {
            rule: manifest.funnel[rule]
            for rule in (REMOVED, SEMANTIC_DUPLICATE)
            if manifest.funnel.get(rule)
        }:
            named = " and ".join(
                f"{count:,} prompts were {_GONE[rule]}" for rule, count in gone.items()
            )
            raise IndexDiffers(
                f"{named} the index in {root}; building it again would bring them back.",
                hint="Say --replace if that is what you want.",
            )
        return
    raise IndexDiffers(
        f"The index in {root} holds {_described(manifest.corpus, manifest.encoders)}; "
        f"this build is of {_described(plan.corpora, plan.encoders)}{other_files(manifest.encoders, plan.encoders)}.",
        hint="Say --replace to replace it, or name another folder with --index.",
    )


def _identity(
    corpora: Sequence[CorpusInfo], encoders: Sequence[EncoderSpec]
) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    return [corpus.fingerprint for corpus in corpora], [
        (spec.space, spec.weights_sha256) for spec in encoders
    ]


def _described(corpora: Sequence[CorpusInfo], encoders: Sequence[EncoderSpec]) -> str:
    named = " + ".join(f"{corpus.name} ({corpus.fingerprint[:8]})" for corpus in corpora)
    return f"{named} by {' + '.join(f'{spec.name} ({spec.space})' for spec in encoders)}"


def other_files(built: Sequence[EncoderSpec], planned: Sequence[EncoderSpec]) -> str:
    """Which weight files differ in spaces that both have: names and spaces are equal then, and the reader could not see it."""
    by_space = {spec.space: spec.weights_sha256 for spec in built}
    differ = []
    for spec in planned:
        there, here = by_space.get(spec.space, spec.weights_sha256), spec.weights_sha256
        for role in sorted({*there, *here}):
            was, now = there.get(role, "none")[:8], here.get(role, "none")[:8]
            if there.get(role) != here.get(role):
                differ.append(f"the {role} weights of {spec.name} were sha256 {was}, here {now}")
    return f"; {', '.join(differ)}" if differ else ""


def carry_out(
    plan: Plan,
    root: Path,
    sources: Sequence[CorpusSource],
    spaces: Sequence[BuildSpace],
    options: BuildOptions,
    *,
    base: IndexVersion | None = None,
    engine: Engine = _HERE,
    gpu: Gpu | None = None,
    began: float,
    progress: Progress,
) -> BuildReport:
    """Do what a plan says, from where it was broken off, and publish; the write lock must be held.

    Args:
        engine: cleans and encodes.
        base: a version whose rows come before those of the sources, with the vectors that it
            has.
        gpu: where the index is made; None for the processor.
        began: the `time.monotonic` at which the command began.
    """
    staging = begin(root, plan)
    words = options.unsafe_words or read_unsafe_words()
    rules = Rules(plan.cleaning, words, lambda texts: spaces[0].texts().token_lengths(texts))
    with Journal(staging / layout.JOURNAL) as journal:
        reading = journal.numbered() is None
        try:
            older = None if base is None else base.folder / layout.PROMPTS
            numbered = number_prompts(
                staging, sources, rules, journal, base=older, engine=engine, progress=progress
            )
            if reading:
                refuse_changed_meanwhile(sources, plan.corpora[-len(sources) :])
        except CorpusError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if options.dropped is not None:
            with atomic_write(options.dropped) as file:
                file.write((staging / layout.DROPPED).read_bytes())
        factory = factory_for(plan, numbered.rows)
        kept = {} if base is None else link_shards(staging, base, progress=progress)
        encoding_began = time.monotonic()
        before = set(journal.shards())
        shards = encode_spaces(
            staging,
            spaces,
            journal,
            rows=range(0 if base is None else base.manifest.rows, numbered.rows),
            first_shard=max((len(done) for done in kept.values()), default=0),
            shard_rows=plan.shard_rows,
            engine=engine,
            progress=progress,
        )
        encode_s = time.monotonic() - encoding_began
        encoded = sum(
            shard.record.rows for key, shard in journal.shards().items() if key not in before
        )
        if base is not None:
            numbered = msgspec.structs.replace(
                numbered, funnel=joined_funnel(base.manifest.funnel, numbered.funnel)
            )
        joined = {space: [*kept.get(space, []), *done] for space, done in shards.items()}
        manifest = finish(
            root, staging, plan, numbered, joined, factory=factory, gpu=gpu, progress=progress
        )
    return BuildReport(
        manifest,
        built=True,
        rejected=tuple(numbered.rejected),
        truncated=sum(shard.truncated for shard in shards[spaces[0].spec.space]),
        encoded=encoded,
        encode_s=encode_s,
        seconds=time.monotonic() - began,
    )
