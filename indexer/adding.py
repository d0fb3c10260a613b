"""Further corpora for an index that is there: what it has stays as it is, only new prompts are encoded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from imprompt.core.errors import ConfigError, IndexDiffers, NoIndex
from imprompt.core.progress import Silent
from imprompt.core.protocols import CorpusSource, DualEncoder, Progress
from imprompt.core.values import EncoderSpec
from imprompt.indexer.build import (
    BuildOptions,
    BuildReport,
    SpaceEncoder,
    carry_out,
    corpus_info,
    other_files,
    spaces_of,
)
from imprompt.indexer.build_plan import AddPlan
from imprompt.indexer.cleaning_rules import Cleaning, UnsafeWords, checked, read_unsafe_words
from imprompt.indexer.corpus_checks import refuse_changed_since, refuse_unreadable
from imprompt.indexer.staging import plan_of, published
from imprompt.store.gpu import Gpu
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.locking import write_lock
from imprompt.store.manifest import CorpusInfo
from imprompt.store.publish import read_current

_SILENT = Silent()


def add_corpora(
    root: Path,
    sources: Sequence[CorpusSource],
    pair: DualEncoder,
    *,
    strict: bool = False,
    unsafe_words: UnsafeWords | None = None,
    dropped: Path | None = None,
    memory_budget_bytes: int | None = None,
    progress: Progress = _SILENT,
    extra: Sequence[SpaceEncoder] = (),
    also: Sequence[DualEncoder] = (),
    gpu: Gpu | None = None,
) -> BuildReport:
    """Publish the index with the prompts of further corpora behind its own; until then the one in place answers.

    The prompts that it has keep their row ids and vectors. New ones go through the same cleaning as
    those did; one that is equal or near to another is folded into it, which counts in `n_submitted`
    and `n_duplicates`. A call that was broken off is gone on with by the same one, and a corpus that is
    in already is not added twice.

    Args:
        root: of the index.
        sources: in the order in which their rows are numbered.
        pair: the one that the index was built with; `extra` and `also`: encoders of its further
            spaces.
        strict: raise where a row cannot be read.
        unsafe_words: the list that the index was built with, None for the one that comes with
            imprompt.
        dropped: a file for examples of what was left out.
        memory_budget_bytes: of the index from now on; None for the one that it was built with.
        gpu: where the index is made; None for the processor.

    Raises:
        NoIndex: there is no index.
        BuildLocked: another process is writing it.
        IndexDiffers: its vectors are of other encoders.
        ConfigError: it was built with another list of unsafe words, or no index of so many rows
            fits into the memory budget.
        CorpusError: a source cannot be read, changed since an addition of it was broken off or
            while it was read, has a row that cannot be read where `strict` is set, or none has a
            usable prompt; nothing is published.
        StorageFull: the disk is full or may not be written.
    """
    began = time.monotonic()
    if not root.is_dir():
        raise NoIndex(
            f"There is no index in {root}.",
            hint=f"Build one: python cli.py build-index --index {root}",
        )
    spaces = spaces_of(pair, extra, also=also)
    with write_lock(root), open_version(root) as base:
        _check_encoders(root, base, [space.spec for space in spaces])
        there = {corpus.fingerprint for corpus in base.manifest.corpus}
        new: list[tuple[CorpusSource, CorpusInfo]] = []
        with progress.start("Fingerprinting", len(sources)) as task:
            for source in sources:
                info = corpus_info(source)
                if info.fingerprint not in there:
                    there.add(info.fingerprint)
                    new.append((source, info))
                task.advance(1)
        if not new:
            return BuildReport(base.manifest, built=False, seconds=time.monotonic() - began)
        options = BuildOptions(unsafe_words=unsafe_words or read_unsafe_words(), dropped=dropped)
        plan = _plan(root, base, [info for _, info in new], options, memory_budget_bytes)
        manifest = published(root, plan, progress=progress)
        if manifest is not None:
            return BuildReport(manifest, built=False, seconds=time.monotonic() - began)
        wanted = [source for source, _ in new]
        if strict:
            refuse_unreadable(wanted, progress=progress)
        refuse_changed_since(root, plan, replace=False)
        return carry_out(
            plan, root, wanted, spaces, options, base=base, gpu=gpu, began=began, progress=progress
        )


def _check_encoders(root: Path, base: IndexVersion, asked: Sequence[EncoderSpec]) -> None:
    built = base.manifest.encoders
    if [(spec.space, spec.weights_sha256) for spec in built] != [
        (spec.space, spec.weights_sha256) for spec in asked
    ]:
        names = [
            " + ".join(f"{spec.name} ({spec.space})" for spec in specs) for specs in (built, asked)
        ]
        raise IndexDiffers(
            f"The index in {root} holds vectors of {names[0]}; these would be of {names[1]}{other_files(built, asked)}.",
            hint="Add with the encoders that it was built with, or build it again.",
        )


def _plan(
    root: Path,
    base: IndexVersion,
    added: Sequence[CorpusInfo],
    options: BuildOptions,
    memory_budget_bytes: int | None,
) -> AddPlan:
    """The base's plan with more corpora.

    Raises:
        ConfigError: the base was cleaned by another list of unsafe words.
    """
    old, current, words = (
        plan_of(base.manifest),
        read_current(root),
        options.unsafe_words or read_unsafe_words(),
    )
    if old.cleaning.unsafe and old.cleaning.unsafe_words != words.sha256:
        raise ConfigError(
            f"The index in {root} was cleaned with another list of unsafe words (sha256 {old.cleaning.unsafe_words[:8]}).",
            hint="Name the list with --unsafe-words.",
        )
    if current is None:
        raise NoIndex(f"There is no index in {root}.")
    return AddPlan(
        corpora=[*old.corpora, *added],
        cleaning=checked(msgspec.structs.replace(old.cleaning, version=Cleaning().version), words),
        encoders=old.encoders,
        shard_rows=old.shard_rows,
        index_factory=old.index_factory,
        memory_budget_bytes=old.memory_budget_bytes
        if memory_budget_bytes is None
        else memory_budget_bytes,
        seed=old.seed,
        base_sha256=current[1],
    )
