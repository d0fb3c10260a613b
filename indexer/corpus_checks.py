"""What stands in the way of a build: rows that cannot be read, where that is not allowed, and corpora that changed under it."""

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
    """Read all sources once, and raise where a row cannot be read; one that is read well and holds no prompt is none of these.

    Raises:
        CorpusError: how many they are, and the first ten with their reasons.
    """
    bad: list[RejectedRow] = []
    count = 0
    for source in sources:
        with progress.start(f"Checking {source.name}", None) as task:
            for batch in source.batches(_CHECKED_ROWS):
                found = [row for row in batch.rejected if row.reason not in HOLDS_NONE]
                bad += found[: _MAX_NAMED - len(bad)]
                count += len(found)
                task.advance(len(batch.prompts) + len(batch.rejected))
    if not bad:
        return
    named = "; ".join(f"{row.source}, {row.source_key}: {row.reason}" for row in bad)
    more = f"; and {count - len(bad):,} more" if count > len(bad) else ""
    raise CorpusError(
        f"{count:,} row{'s' * (count > 1)} cannot be read, and --strict is set: {named}{more}.",
        hint="Mend them, or build without --strict.",
    )


def refuse_changed_since(root: Path, plan: Plan, *, replace: bool) -> None:
    """Raise where a build of the same corpora was broken off when one of them was another; the write lock must be held.

    Args:
        root: of the index.
        plan: of the build that is about to begin or to go on.
        replace: remove that build instead.

    Raises:
        CorpusError: both fingerprints stand in the message.
    """
    for folder, other in _unfinished(root, type(plan)):
        changed = _changed(other, plan)
        if changed is None:
            continue
        if not replace:
            was, now = changed
            raise CorpusError(
                f"{now.name} is not what it was when a build of it was broken off: its fingerprint was {_told(was)}, it is "
                f"{_told(now)} (the corpus changed, or --column, --limit, --sample or --seed did).",
                hint="Put the old one back to go on with that build, or say --replace to drop it (as `gc` does) and begin anew.",
            )
        shutil.rmtree(folder)


def refuse_changed_meanwhile(
    sources: Sequence[CorpusSource], planned: Sequence[CorpusInfo]
) -> None:
    """Raise where a source is not any more what it was when the plan was made.

    Raises:
        CorpusError: both fingerprints stand in the message.
    """
    for source, was in zip(sources, planned, strict=True):
        now = source.fingerprint()
        if now != was.fingerprint:
            raise CorpusError(
                f"{was.name} changed while it was read: its fingerprint was {was.fingerprint}, it is {now}.",
                hint="Build again when nothing writes to it; nothing was published.",
            )


def _unfinished(root: Path, kind: type[Plan]) -> Iterator[tuple[Path, Plan]]:
    """The builds that were broken off, with their plans; what is no plan of this kind and version is passed over."""
    for folder, is_link in entries(layout.staging_root(root)):
        try:
            if not is_link:
                yield (
                    folder,
                    msgspec.json.decode(
                        read_file(folder, layout.PLAN, most_bytes=_PLAN_BYTES), type=kind
                    ),
                )
        except (Checksum, OSError, RecursionError, UnicodeDecodeError, msgspec.MsgspecError):
            continue


def _changed(other: Plan, plan: Plan) -> tuple[CorpusInfo, CorpusInfo] | None:
    """The first corpus that differs, in both plans, where nothing but the content of corpora does."""
    if [corpus.name for corpus in other.corpora] != [corpus.name for corpus in plan.corpora]:
        return None
    if msgspec.structs.replace(other, corpora=[]) != msgspec.structs.replace(plan, corpora=[]):
        return None
    pairs = zip(other.corpora, plan.corpora, strict=True)
    return next(((was, now) for was, now in pairs if was.fingerprint != now.fingerprint), None)


def _told(corpus: CorpusInfo) -> str:
    return f"{corpus.fingerprint} ({corpus.origin})" if corpus.origin else corpus.fingerprint
