"""What stops a build because of its corpora: unreadable rows under `--strict`, changed files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from imprompt.core.errors import Checksum, CorpusError
from imprompt.core.protocols import CorpusSource, Progress
from imprompt.core.values import RejectedRow
from imprompt.indexer.build_plan import Plan
from imprompt.indexer.readers.rows import HOLDS_NONE
from imprompt.store import layout
from imprompt.store.manifest import CorpusInfo
from imprompt.store.paths import entries, read_file

_CHECKED_ROWS = 16_384
_PLAN_BYTES = 16 << 20
_MAX_NAMED = 10


def refuse_unreadable(sources: Sequence[CorpusSource], *, progress: Progress) -> None:
    """Read all sources once and raise if a row cannot be read; rows without a prompt are fine.

    Raises:
        CorpusError: with the number of such rows, and the first ten with their reasons.
    """
    named: list[RejectedRow] = []
    count = 0
    for source in sources:
        with progress.start(f"Checking {source.name}", None) as task:
            for batch in source.batches(_CHECKED_ROWS):
                bad = [row for row in batch.rejected if row.reason not in HOLDS_NONE]
                named += bad[: _MAX_NAMED - len(named)]
                count += len(bad)
                task.advance(len(batch.prompts) + len(batch.rejected))
    if not count:
        return
    rows = "1 row" if count == 1 else f"{count:,} rows"
    reasons = "; ".join(f"{row.source}, {row.source_key}: {row.reason}" for row in named)
    more = f"; and {count - len(named):,} more" if count > len(named) else ""
    raise CorpusError(
        f"{rows} cannot be read, and --strict is set: {reasons}{more}.",
        hint="Fix them, or build without --strict.",
    )


def refuse_changed_since(root: Path, plan: Plan, *, replace: bool) -> None:
    """Raise if a corpus has changed since an interrupted build of the same corpora.

    The write lock must be held.

    Args:
        root: of the index.
        plan: of the build that is about to begin or to resume.
        replace: delete the interrupted build instead.

    Raises:
        CorpusError: with both fingerprints.
    """
    for folder, other in _interrupted_builds(root, type(plan)):
        change = _first_change(other, plan)
        if change is None:
            continue
        if not replace:
            old, new = change
            raise CorpusError(
                f"{new.name} has changed since the interrupted build: its fingerprint was "
                f"{_fingerprint_text(old)} and is {_fingerprint_text(new)} "
                "(the corpus changed, or --column, --limit, --sample or --seed did).",
                hint="Restore the old corpus to resume that build, or use --replace to discard it "
                "(as `gc` does) and start over.",
            )
        shutil.rmtree(folder)


def refuse_changed_meanwhile(
    sources: Sequence[CorpusSource], planned: Sequence[CorpusInfo]
) -> None:
    """Raise if a source has changed since the plan was made.

    Raises:
        CorpusError: with both fingerprints.
    """
    for source, corpus in zip(sources, planned, strict=True):
        fingerprint = source.fingerprint()
        if fingerprint != corpus.fingerprint:
            raise CorpusError(
                f"{corpus.name} changed while it was read: its fingerprint was "
                f"{corpus.fingerprint} and is {fingerprint}.",
                hint="Build again when nothing writes to it; nothing was published.",
            )


def _interrupted_builds(root: Path, kind: type[Plan]) -> Iterator[tuple[Path, Plan]]:
    """Yield (staging folder, plan) of unfinished builds; plans of another kind are skipped."""
    for folder, is_link in entries(layout.staging_root(root)):
        try:
            if not is_link:
                content = read_file(folder, layout.PLAN, most_bytes=_PLAN_BYTES)
                yield folder, msgspec.json.decode(content, type=kind)
        except (Checksum, OSError, RecursionError, UnicodeDecodeError, msgspec.MsgspecError):
            continue


def _first_change(other: Plan, plan: Plan) -> tuple[CorpusInfo, CorpusInfo] | None:
    """Return the first corpus that differs, from both plans, if only corpus contents do."""
    if [corpus.name for corpus in other.corpora] != [corpus.name for corpus in plan.corpora]:
        return None
    if msgspec.structs.replace(other, corpora=[]) != msgspec.structs.replace(plan, corpora=[]):
        return None
    both = zip(other.corpora, plan.corpora, strict=True)
    return next(((old, new) for old, new in both if old.fingerprint != new.fingerprint), None)


def _fingerprint_text(corpus: CorpusInfo) -> str:
    return f"{corpus.fingerprint} ({corpus.origin})" if corpus.origin else corpus.fingerprint
