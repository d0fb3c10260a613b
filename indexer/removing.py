"""Remove prompts by rule: a new version without them, with all older versions purged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np

from imprompt.core.errors import ConfigError
from imprompt.core.predicates import Predicate
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.values import Ids, Prompt
from imprompt.indexer.build_plan import RemovePlan, inherited_fields
from imprompt.indexer.cleaning_stats import REMOVED
from imprompt.indexer.rewriting import rewrite
from imprompt.indexer.staging import find_published, require_index
from imprompt.store.conditions import holds_words, matches, where
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest
from imprompt.store.prompts import DuckPrompts
from imprompt.store.publish import purge_others

SHOWN = 10
_RULES_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class RemoveRules:
    """The prompts to remove: those that meet any of the conditions."""

    conditions: tuple[Predicate, ...]

    @property
    def sha256(self) -> str:
        """64 hex digits that name the rules."""
        return hashlib.sha256(repr(self.conditions).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Preview:
    """What a removal would take: `matching` of `rows` prompts, and the first ten of them."""

    rows: int
    matching: int
    first: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """The version in service, the prompts removed, and (folder, bytes) of what was purged."""

    manifest: Manifest
    removed: int
    purged: tuple[tuple[str, int], ...]


def rules_where(expression: str) -> RemoveRules:
    """Return the rule of a condition; see `imprompt.store.conditions.where`.

    Raises:
        FilterRejected: the condition is invalid.
    """
    return RemoveRules((where(expression),))


def rules_of_file(path: Path, *, regex: bool = False) -> RemoveRules:
    """Return a rule for each line of a file: prompts that contain it, in any case.

    Both the text that is shown and the one that was encoded are searched. Empty lines are skipped.

    Args:
        path: a UTF-8 text file.
        regex: lines are regular expressions (RE2) instead of literal words.

    Raises:
        ConfigError: the file cannot be read, or has no line.
        FilterRejected: a line is too long, or not a regular expression.
    """
    try:
        lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"{path} cannot be read: {reason}.",
            hint="Name a text file with one line for each text to remove.",
        ) from error
    if not lines:
        raise ConfigError(f"{path} has no line to match prompts with.")
    return RemoveRules(tuple(matches(line) if regex else holds_words(line) for line in lines))


def preview_removal(root: Path, rules: RemoveRules) -> Preview:
    """Return what `remove_prompts` would take out. Writes nothing.

    Raises:
        StoreError: there is no index, or it is damaged.
    """
    with open_version(root) as version:
        row_ids = _matching(version.prompts, rules)
        first = tuple(version.prompts.get_many(row_ids[:SHOWN]))
        return Preview(len(version.prompts), len(row_ids), first)


def remove_prompts(root: Path, rules: RemoveRules, *, progress: Progress = SILENT) -> RemoveReport:
    """Publish the index without the prompts that match, and purge everything older.

    The rest is rewritten: vectors are copied, not encoded. Repeat an interrupted call to resume it.
    All other versions and unfinished builds are deleted even if nothing matches, since they may
    hold what the version in service no longer does; readers keep a version until they close it.

    Raises:
        NoIndex: there is no index.
        BuildLocked: another process is writing it.
        ConfigError: all prompts match.
        Checksum: the index is damaged.
        StorageFull: the disk is full or read-only.
    """
    require_index(root)
    with write_lock(root):
        with open_version(root) as base:
            before = base.manifest.funnel.get(REMOVED, 0)
            manifest = _publish_without(root, base, rules, progress=progress)
        del base  # Windows removes no file that is mapped
        purged = purge_others(root, manifest.version)
    removed = manifest.funnel.get(REMOVED, 0) - before
    return RemoveReport(manifest, removed, tuple(purged))


def _publish_without(
    root: Path, base: IndexVersion, rules: RemoveRules, *, progress: Progress
) -> Manifest:
    """Return the manifest of the version without the prompts that match, the base's if none do."""
    plan = RemovePlan(**inherited_fields(base), rules_sha256=rules.sha256)
    manifest = find_published(root, plan, progress=progress)
    if manifest is not None:
        return manifest
    row_ids = _matching(base.prompts, rules)
    if len(row_ids) == len(base.prompts):
        raise ConfigError(
            f"All {len(row_ids):,} prompts match; an index holds at least one.",
            hint=f"Remove {root} instead.",
        )
    if not len(row_ids):
        return base.manifest
    return rewrite(root, base, plan, row_ids, rule=REMOVED, progress=progress)


def _matching(prompts: DuckPrompts, rules: RemoveRules) -> Ids:
    """Return the row ids that match any rule, rising; a query holds a limited number of rules."""
    row_ids = np.empty(0, dtype=np.int64)
    for start in range(0, len(rules.conditions), _RULES_AT_ONCE):
        any_of = reduce(or_, rules.conditions[start : start + _RULES_AT_ONCE])
        row_ids = np.union1d(row_ids, prompts.matching(any_of))
    return row_ids
