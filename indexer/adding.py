"""Add corpora to an index: its rows and vectors are kept, only new prompts are encoded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from imprompt.core.errors import ConfigError, IndexDiffers
from imprompt.core.progress import SILENT
from imprompt.core.protocols import CorpusSource, DualEncoder, Progress
from imprompt.core.values import EncoderSpec
from imprompt.indexer.build import (
    BuildOptions,
    BuildReport,
    SpaceEncoder,
    read_corpus_infos,
    run_plan,
    spaces_of,
    weight_differences,
)
from imprompt.indexer.build_plan import AddPlan, inherited_fields
from imprompt.indexer.cleaning_rules import (
    Cleaning,
    UnsafeWords,
    read_unsafe_words,
    resolve_cleaning,
)
from imprompt.indexer.corpus_checks import refuse_changed_since, refuse_unreadable
from imprompt.indexer.engine import BuildSpace
from imprompt.indexer.staging import find_published, require_index
from imprompt.store.gpu import Gpu
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.locking import write_lock
from imprompt.store.manifest import CorpusInfo


def add_corpora(
    root: Path,
    sources: Sequence[CorpusSource],
    encoder: DualEncoder,
    *,
    strict: bool = False,
    unsafe_words: UnsafeWords | None = None,
    dropped: Path | None = None,
    memory_budget_bytes: int | None = None,
    progress: Progress = SILENT,
    extra: Sequence[SpaceEncoder] = (),
    also: Sequence[DualEncoder] = (),
    gpu: Gpu | None = None,
) -> BuildReport:
    """Publish the index with the prompts of further corpora; until then the old version answers.

    Its prompts keep their row ids and vectors. New prompts are cleaned by the settings of the
    index; one that equals or is near another is dropped and counts in that one's `n_submitted` and
    `n_duplicates`. Corpora that the index holds are skipped. Repeat an interrupted call to resume
    it.

    Args:
        encoder: the one that the index was built with; `extra` and `also` are those of its other
            spaces.
        memory_budget_bytes: of the index from now on; None keeps the one it was built with.
        strict, unsafe_words, dropped: see `BuildOptions`; all others: see `build_index`.

    Raises:
        NoIndex: there is no index.
        IndexDiffers: its vectors are of other encoders.
        ConfigError: it was built with another list of unsafe words, or no index of so many rows
            fits into the memory budget.
        BuildLocked, CorpusError, StorageFull: see `build_index`.
    """
    began = time.monotonic()
    require_index(root)
    spaces = spaces_of(encoder, extra, also=also)
    words = unsafe_words or read_unsafe_words()
    options = BuildOptions(unsafe_words=words, dropped=dropped)
    with write_lock(root), open_version(root) as base:
        _check_encoders(root, base, [space.spec for space in spaces])
        corpora = _new_corpora(base, sources, progress=progress)
        if not corpora:
            return BuildReport(base.manifest, built=False, seconds=time.monotonic() - began)
        plan = _plan(root, base, [corpus for _, corpus in corpora], words, memory_budget_bytes)
        sources = [source for source, _ in corpora]
        report = _publish(
            root, plan, sources, spaces, options, base, strict=strict, gpu=gpu, progress=progress
        )
    return replace(report, seconds=time.monotonic() - began)


def _publish(
    root: Path,
    plan: AddPlan,
    sources: Sequence[CorpusSource],
    spaces: Sequence[BuildSpace],
    options: BuildOptions,
    base: IndexVersion,
    *,
    strict: bool,
    gpu: Gpu | None,
    progress: Progress,
) -> BuildReport:
    """Put a version of the plan in service, an intact one that exists or else a new one."""
    manifest = find_published(root, plan, progress=progress)
    if manifest is not None:
        return BuildReport(manifest, built=False)
    if strict:
        refuse_unreadable(sources, progress=progress)
    refuse_changed_since(root, plan, replace=False)
    return run_plan(plan, root, sources, spaces, options, base=base, gpu=gpu, progress=progress)


def _check_encoders(root: Path, base: IndexVersion, specs: Sequence[EncoderSpec]) -> None:
    built = base.manifest.encoders
    if [(spec.space, spec.weights_sha256) for spec in built] != [
        (spec.space, spec.weights_sha256) for spec in specs
    ]:
        old, new = (
            " + ".join(f"{spec.name} ({spec.space})" for spec in encoders)
            for encoders in (built, specs)
        )
        raise IndexDiffers(
            f"The index in {root} holds vectors of {old}; these would be of {new}"
            f"{weight_differences(built, specs)}.",
            hint="Add with the encoders that it was built with, or build the index again.",
        )


def _new_corpora(
    base: IndexVersion, sources: Sequence[CorpusSource], *, progress: Progress
) -> list[tuple[CorpusSource, CorpusInfo]]:
    """Return the sources whose content is not in the index yet, each content once."""
    known = {corpus.fingerprint for corpus in base.manifest.corpus}
    corpora = []
    for source, corpus in zip(sources, read_corpus_infos(sources, progress=progress), strict=True):
        if corpus.fingerprint not in known:
            known.add(corpus.fingerprint)
            corpora.append((source, corpus))
    return corpora


def _plan(
    root: Path,
    base: IndexVersion,
    added: Sequence[CorpusInfo],
    words: UnsafeWords,
    memory_budget_bytes: int | None,
) -> AddPlan:
    """Extend the plan of the base by more corpora.

    Raises:
        ConfigError: the base was cleaned with another list of unsafe words.
    """
    fields = inherited_fields(base)
    cleaning: Cleaning = fields["cleaning"]
    if cleaning.unsafe and cleaning.unsafe_words != words.sha256:
        raise ConfigError(
            f"The index in {root} was cleaned with another list of unsafe words "
            f"(sha256 {cleaning.unsafe_words[:8]}).",
            hint="Name the list with --unsafe-words.",
        )
    current = msgspec.structs.replace(cleaning, version=Cleaning().version)
    fields |= {
        "corpora": [*fields["corpora"], *added],
        "cleaning": resolve_cleaning(current, words),
    }
    if memory_budget_bytes is not None:
        fields["memory_budget_bytes"] = memory_budget_bytes
    return AddPlan(**fields)
