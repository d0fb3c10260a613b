"""Prompts out by rule: a compacted version without them, and nothing older left behind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np

from imprompt.core.errors import ConfigError, NoIndex
from imprompt.core.predicates import Predicate
from imprompt.core.progress import Silent
from imprompt.core.protocols import Progress
from imprompt.core.values import Ids, Prompt
from imprompt.indexer.build_plan import RemovePlan
from imprompt.indexer.cleaning_stats import REMOVED
from imprompt.indexer.completion import going_on_from, published
from imprompt.indexer.rewriting import rewrite
from imprompt.store.conditions import holds_words, matches, where
from imprompt.store.index_version import open_version
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest
from imprompt.store.prompts import DuckPrompts
from imprompt.store.publish import purge_others

SHOWN = 10
_RULES_AT_ONCE = 50
_SILENT = Silent()


@dataclass(frozen=True, slots=True)
class RemoveRules:
    """Which prompts are to go: those that meet any of the conditions.

    `sha256` (64 hex digits) names the rules.
    """

    conditions: tuple[Predicate, ...]

    @property
    def sha256(self) -> str:
        """Equal rules have equal names."""
        return hashlib.sha256(repr(self.conditions).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Preview:
    """What a removal would take: how many of how many prompts, and the first ten of them."""

    rows: int
    matching: int
    first: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """What a removal did: how many prompts it took out, the version in service, and (folder, bytes) of what it purged."""

    manifest: Manifest
    removed: int
    purged: tuple[tuple[str, int], ...]


def rules_where(expression: str) -> RemoveRules:
    """The prompts of which a condition is true; see `imprompt.store.conditions.where`.

    Raises:
        FilterRejected: the condition cannot be used.
    """
    return RemoveRules((where(expression),))


def rules_of_file(path: Path, *, regex: bool = False) -> RemoveRules:
    """The prompts in which any line of a file occurs, whatever the case; empty lines do not count.

    Looked for in the text that is shown and in what the encoder saw.

    Args:
        path: a UTF-8 text file.
        regex: a line is a regular expression (RE2) instead of the very words.

    Raises:
        ConfigError: the file cannot be read, or has no line.
        FilterRejected: a line is too long, or no regular expression.
    """
    try:
        lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"{path} cannot be read: {reason}.",
            hint="Name a text file with a line for each text to look for.",
        ) from error
    if not lines:
        raise ConfigError(f"{path} has no line that says what to remove.")
    return RemoveRules(tuple(matches(line) if regex else holds_words(line) for line in lines))


def preview_removal(root: Path, rules: RemoveRules) -> Preview:
    """What `remove_prompts` would take out. Writes nothing.

    Raises:
        StoreError: there is no index, or it is damaged.
    """
    with open_version(root) as version:
        found = _matching(version.prompts, rules)
        return Preview(
            len(version.prompts), len(found), tuple(version.prompts.get_many(found[:SHOWN]))
        )


def remove_prompts(root: Path, rules: RemoveRules, *, progress: Progress = _SILENT) -> RemoveReport:
    """Publish the index without the prompts that the rules name, and purge all that is older.

    What stays is written afresh: vectors are copied, never encoded. A call that was broken off is
    gone on with by the same one. All other versions and all unfinished builds are removed also
    where nothing matches, since they may hold what the version in service does not; readers that
    have one open keep it until they let go.

    Raises:
        NoIndex: there is no index.
        BuildLocked: another process is writing it.
        ConfigError: all prompts match.
        Checksum: the index is damaged.
        StorageFull: the disk is full or may not be written.
    """
    if not root.is_dir():
        raise NoIndex(f"There is no index in {root}.")
    with write_lock(root):
        with open_version(root) as base:
            plan = RemovePlan(**going_on_from(root, base.manifest), rules_sha256=rules.sha256)
            there = published(root, plan, progress=progress)
            removed = np.empty(0, dtype=np.int64) if there else _matching(base.prompts, rules)
            if len(removed) == len(base.prompts):
                raise ConfigError(
                    f"All {len(removed):,} prompts match; an index holds at least one.",
                    hint=f"Remove {root} instead.",
                )
            manifest = there or base.manifest
            if len(removed):
                manifest = rewrite(root, base, plan, removed, rule=REMOVED, progress=progress)
        purged = purge_others(root, manifest.version)
    taken = manifest.funnel.get(REMOVED, 0) - base.manifest.funnel.get(REMOVED, 0)
    return RemoveReport(manifest, taken, tuple(purged))


def _matching(prompts: DuckPrompts, rules: RemoveRules) -> Ids:
    """The row ids that any rule names, rising; many rules are asked for a few at a time."""
    found = np.empty(0, dtype=np.int64)
    for start in range(0, len(rules.conditions), _RULES_AT_ONCE):
        found = np.union1d(
            found, prompts.matching(reduce(or_, rules.conditions[start : start + _RULES_AT_ONCE]))
        )
    return found
