"""From corpora to a published version of an index.

Repeating the same call resumes an interrupted build.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import ConfigError, CorpusError, IndexDiffers
from imprompt.core.progress import SILENT
from imprompt.core.protocols import CorpusSource, DualEncoder, Progress, TextEncoder
from imprompt.core.values import EncoderSpec, RejectedRow
from imprompt.indexer.build_plan import DEFAULT_SHARD_ROWS, BuildPlan, Plan
from imprompt.indexer.cleaning_rules import (
    Cleaning,
    Rules,
    UnsafeWords,
    read_unsafe_words,
    resolve_cleaning,
)
from imprompt.indexer.cleaning_stats import REMOVED, SEMANTIC_DUPLICATE, joined_funnel
from imprompt.indexer.corpus_checks import (
    refuse_changed_meanwhile,
    refuse_changed_since,
    refuse_unreadable,
)
from imprompt.indexer.engine import BuildSpace, Engine, LocalEngine, encode_spaces
from imprompt.indexer.journal import Journal, Numbered
from imprompt.indexer.numbering import number_prompts
from imprompt.indexer.staging import (
    choose_factory,
    find_published,
    index_and_publish,
    link_shards,
    manifest_in_service,
    open_staging,
)
from imprompt.store import layout
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import DEFAULT_BUDGET_BYTES, read_factory
from imprompt.store.index_version import IndexVersion
from imprompt.store.locking import write_lock
from imprompt.store.manifest import CorpusInfo, Manifest

_LOCAL = LocalEngine()
_LOSSES = {REMOVED: "removed", SEMANTIC_DUPLICATE: "dropped as duplicates"}


class SpaceEncoder(TextEncoder, Protocol):
    """A text encoder that knows its space."""

    @property
    def spec(self) -> EncoderSpec: ...


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build. All but `replace`, `strict` and `dropped` become part of the plan.

    Attributes:
        index_factory: FAISS's factory string; None lets `imprompt.store.index_plan.plan_index`
            choose within `memory_budget_bytes`.
        replace: overwrite an index of another corpus or encoder.
        strict: fail if a row cannot be read; what is built is the same.
        unsafe_words: the list for `cleaning.unsafe`; None takes the one that comes with imprompt.
        dropped: a file for examples of what was left out.
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
    """The outcome of a build.

    Attributes:
        built: False if the same plan was already published and there was nothing to do.
        rejected: the first ten rejected rows of each corpus.
        truncated: prompts that are longer than the first encoder's limit.
        encoded: vectors that this call made; a resumed build makes only what was missing.
        encode_s: how long that took, of all `seconds`.
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
    encoder: DualEncoder,
    *,
    options: BuildOptions = BuildOptions(),
    progress: Progress = SILENT,
    extra: Sequence[SpaceEncoder] = (),
    also: Sequence[DualEncoder] = (),
    engine: Engine = _LOCAL,
    gpu: Gpu | None = None,
) -> BuildReport:
    """Build an index below `root` and put it in service; until then the old one answers.

    Args:
        root: of the index; created if missing.
        sources: in the order in which their rows are numbered.
        encoder: its text tower encodes the prompts; its space is the one that is searched.
        extra: text encoders whose vectors are stored, too, but not searched.
        also: the same for the text towers of dual encoders.
        engine: cleans and encodes; a build can be resumed on another one.
        gpu: builds the index; None builds it on the CPU. Encoders have their own devices.

    Raises:
        BuildLocked: another process is writing this index.
        IndexDiffers: see `refuse_other`; `options.replace` is not set.
        CorpusError: a source cannot be read, has changed since an interrupted build or while it was
            read, has an unreadable row under `options.strict`, or none has a usable prompt.
        StorageFull: the disk is full or read-only.
    """
    began = time.monotonic()
    spaces = spaces_of(encoder, extra, also=also)
    with write_lock(root):
        if options.strict:
            refuse_unreadable(sources, progress=progress)
        specs = [space.spec for space in spaces]
        plan = make_plan(sources, specs, options=options, progress=progress)
        if not options.replace:
            refuse_other(root, plan)
        manifest = find_published(root, plan, progress=progress)
        if manifest is None:
            refuse_changed_since(root, plan, replace=options.replace)
            report = run_plan(
                plan, root, sources, spaces, options, engine=engine, gpu=gpu, progress=progress
            )
        else:
            report = BuildReport(manifest, built=False)
    return replace(report, seconds=time.monotonic() - began)


def spaces_of(
    encoder: DualEncoder, extra: Sequence[SpaceEncoder], *, also: Sequence[DualEncoder] = ()
) -> list[BuildSpace]:
    """Return the spaces of a build, that of `encoder` first; towers are loaded when needed."""

    def space_of(texts: SpaceEncoder) -> BuildSpace:
        return BuildSpace(texts.spec, lambda: texts)

    def tower_of(dual: DualEncoder) -> BuildSpace:
        return BuildSpace(dual.spec, lambda: dual.texts)

    return [tower_of(encoder), *map(space_of, extra), *map(tower_of, also)]


def make_plan(
    sources: Sequence[CorpusSource],
    encoders: Sequence[EncoderSpec],
    *,
    options: BuildOptions,
    progress: Progress = SILENT,
) -> BuildPlan:
    """Return what `build_index` is going to do.

    Raises:
        ConfigError: there is no source, two encoders share a space, a shard has no row, the factory
            string is unknown, or the cleaning settings cannot be used.
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
    return BuildPlan(
        corpora=read_corpus_infos(sources, progress=progress),
        cleaning=resolve_cleaning(options.cleaning, options.unsafe_words or read_unsafe_words()),
        encoders=list(encoders),
        shard_rows=options.shard_rows,
        index_factory=options.index_factory,
        memory_budget_bytes=options.memory_budget_bytes,
        seed=options.seed,
    )


def read_corpus_infos(sources: Sequence[CorpusSource], *, progress: Progress) -> list[CorpusInfo]:
    """Read all sources and return what plan and manifest say of each.

    Raises:
        CorpusError: a source cannot be read.
    """
    corpora: list[CorpusInfo] = []
    with progress.start("Fingerprinting", len(sources)) as task:
        for source in sources:
            corpora.append(
                CorpusInfo(source.name, source.fingerprint(), source.synthetic, source.origin)
            )
            task.advance(1)
    return corpora


def refuse_other(root: Path, plan: BuildPlan) -> None:
    """Raise if the plan would lose something of the index in service.

    A damaged index may be replaced, and so may one of the same content under another name.

    Raises:
        IndexDiffers: it has another corpus or encoder, or prompts were taken out of it.
        FormatVersion: it is in another format.
    """
    manifest = manifest_in_service(root)
    if manifest is None:
        return
    if _identity(manifest.corpus, manifest.encoders) != _identity(plan.corpora, plan.encoders):
        raise IndexDiffers(
            f"The index in {root} holds {_described(manifest.corpus, manifest.encoders)}; "
            f"this build is of {_described(plan.corpora, plan.encoders)}"
            f"{weight_differences(manifest.encoders, plan.encoders)}.",
            hint="Use --replace to overwrite it, or name another folder with --index.",
        )
    losses = [
        f"{manifest.funnel[rule]:,} prompts were {loss}"
        for rule, loss in _LOSSES.items()
        if manifest.funnel.get(rule)
    ]
    if losses:
        raise IndexDiffers(
            f"{' and '.join(losses)}; building the index in {root} again would bring them back.",
            hint="Use --replace if that is what you want.",
        )


def _identity(
    corpora: Sequence[CorpusInfo], encoders: Sequence[EncoderSpec]
) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    return [corpus.fingerprint for corpus in corpora], [
        (spec.space, spec.weights_sha256) for spec in encoders
    ]


def _described(corpora: Sequence[CorpusInfo], encoders: Sequence[EncoderSpec]) -> str:
    names = " + ".join(f"{corpus.name} ({corpus.fingerprint[:8]})" for corpus in corpora)
    return f"{names} by {' + '.join(f'{spec.name} ({spec.space})' for spec in encoders)}"


def weight_differences(built: Sequence[EncoderSpec], planned: Sequence[EncoderSpec]) -> str:
    """Name the weight files that differ in spaces of both; names and spaces do not show them."""
    by_space = {spec.space: spec.weights_sha256 for spec in built}
    differences = []
    for spec in planned:
        old, new = by_space.get(spec.space, spec.weights_sha256), spec.weights_sha256
        differences += [
            f"the {role} weights of {spec.name} were sha256 {old.get(role, 'none')[:8]}, "
            f"here {new.get(role, 'none')[:8]}"
            for role in sorted({*old, *new})
            if old.get(role) != new.get(role)
        ]
    return f"; {', '.join(differences)}" if differences else ""


def run_plan(
    plan: Plan,
    root: Path,
    sources: Sequence[CorpusSource],
    spaces: Sequence[BuildSpace],
    options: BuildOptions,
    *,
    base: IndexVersion | None = None,
    engine: Engine = _LOCAL,
    gpu: Gpu | None = None,
    progress: Progress,
) -> BuildReport:
    """Run or resume a plan until it is published; needs the write lock, leaves `seconds` at 0.

    Args:
        base: a version whose rows come before those of the sources and keep their vectors.
    """
    staging = open_staging(root, plan)
    with Journal(staging / layout.JOURNAL) as journal:
        numbered = _number(
            plan, staging, sources, spaces, options, journal, base, engine, progress=progress
        )
        factory = choose_factory(plan, numbered.rows)
        reused = {} if base is None else link_shards(staging, base, progress=progress)
        encoding_began, earlier = time.monotonic(), set(journal.shards())
        encoded = encode_spaces(
            staging,
            spaces,
            journal,
            rows=range(0 if base is None else base.manifest.rows, numbered.rows),
            first_shard=max(map(len, reused.values()), default=0),
            shard_rows=plan.shard_rows,
            engine=engine,
            progress=progress,
        )
        encode_s = time.monotonic() - encoding_began
        written = [shard for key, shard in journal.shards().items() if key not in earlier]
        shards = {space: [*reused.get(space, []), *new] for space, new in encoded.items()}
    # The journal is closed by now: Windows moves no folder with an open file in it.
    manifest = index_and_publish(
        root,
        staging,
        plan,
        numbered,
        shards,
        factory=factory,
        licence="" if base is None else base.manifest.licence,
        gpu=gpu,
        progress=progress,
    )
    return BuildReport(
        manifest,
        built=True,
        rejected=tuple(numbered.rejected),
        truncated=sum(shard.truncated for shard in encoded[spaces[0].spec.space]),
        encoded=sum(shard.record.rows for shard in written),
        encode_s=encode_s,
    )


def _number(
    plan: Plan,
    staging: Path,
    sources: Sequence[CorpusSource],
    spaces: Sequence[BuildSpace],
    options: BuildOptions,
    journal: Journal,
    base: IndexVersion | None,
    engine: Engine,
    *,
    progress: Progress,
) -> Numbered:
    """Clean and number the prompts; with a base, its funnel is part of the result's.

    Nothing of the build is kept if a corpus cannot be read or changes meanwhile.
    """
    words = options.unsafe_words or read_unsafe_words()
    rules = Rules(plan.cleaning, words, lambda texts: spaces[0].texts().token_lengths(texts))
    resumed = journal.numbered() is not None
    try:
        numbered = number_prompts(
            staging,
            sources,
            rules,
            journal,
            base=None if base is None else base.folder / layout.PROMPTS,
            engine=engine,
            progress=progress,
        )
        if not resumed:
            refuse_changed_meanwhile(sources, plan.corpora[-len(sources) :])
    except CorpusError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if options.dropped is not None:
        with atomic_write(options.dropped) as file:
            file.write((staging / layout.DROPPED).read_bytes())
    if base is None:
        return numbered
    funnel = joined_funnel(base.manifest.funnel, numbered.funnel)
    return msgspec.structs.replace(numbered, funnel=funnel)
