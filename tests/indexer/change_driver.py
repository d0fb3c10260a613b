"""Change an index and be killed at a named point; a program that `test_change_kills.py` runs.

    python tests/indexer/change_driver.py remove ROOT POINT
    python tests/indexer/change_driver.py dedupe ROOT POINT
    python tests/indexer/change_driver.py reindex ROOT POINT|signal
    python tests/indexer/change_driver.py add ROOT POINT CORPUS

POINT "signal" says "ready" once everything is imported. The others wrap functions of the product
from outside; the product knows nothing of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import imprompt.indexer.engine
import imprompt.indexer.journal
import imprompt.indexer.numbering
import imprompt.indexer.reindexing
import imprompt.indexer.removing
import imprompt.indexer.rewriting
import imprompt.indexer.staging
import imprompt.store.publish
import imprompt.store.shards
from imprompt.indexer.adding import add_corpora
from imprompt.indexer.build import BuildReport
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.reindexing import ReindexReport
from imprompt.indexer.reindexing import reindex as make_anew
from imprompt.indexer.removing import RemoveReport, remove_prompts, rules_where
from imprompt.indexer.semantic_duplicates import DedupeReport, dedupe_similar
from imprompt.store.staged_prompts import StagedPrompts
from tests.indexer.doubles import BagOfWords, BagPair
from tests.indexer.kill_driver import PUBLISHING
from tests.killing import after, before, in_the_middle_of_a_file

WORD = "Zanzibarquokka"


def remove(root: Path) -> RemoveReport:
    """Run the command that is interrupted and repeated."""
    return remove_prompts(root, rules_where(f"text LIKE '%{WORD}%'"))


def dedupe(root: Path) -> DedupeReport:
    """Run the command that is interrupted and repeated."""
    return dedupe_similar(root, cosine=0.98)


def reindex(root: Path) -> ReindexReport:
    """Run the command that is interrupted and repeated."""
    return make_anew(root, index_factory="IVF4,SQ8")


def add(root: Path, corpus: Path, pair: BagPair, second: BagOfWords) -> BuildReport:
    """Run the command that is interrupted and repeated."""
    imprompt.indexer.engine.READ_ROWS = 100
    return add_corpora(root, [parse_corpus(str(corpus))], pair, extra=[second])


DEDUPING: dict[str, Callable[[], None]] = {
    "before the prompts are written": lambda: before(imprompt.indexer.rewriting, "write_without"),
    "between the prompts and their journal line": lambda: after(
        imprompt.indexer.rewriting, "write_without"
    ),
    "in the middle of a shard": lambda: in_the_middle_of_a_file(imprompt.store.shards, call=3),
    "between a shard and its journal line": lambda: after(
        imprompt.indexer.rewriting, "write_codes", call=3
    ),
    **PUBLISHING,
}
REMOVING: dict[str, Callable[[], None]] = {
    **DEDUPING,
    "before purging": lambda: before(imprompt.indexer.removing, "purge_others"),
    "in the middle of purging": lambda: before(imprompt.store.publish, "_remove"),
}
REINDEXING: dict[str, Callable[[], None]] = {
    "between shards": lambda: after(imprompt.indexer.staging, "link_file", call=3),
    "after the prompts": lambda: after(imprompt.indexer.reindexing, "link_file"),
    "before the index": lambda: before(imprompt.indexer.staging, "index_space"),
    "after the index": lambda: after(imprompt.indexer.staging, "index_space"),
    **{point: kill for point, kill in PUBLISHING.items() if "journal" not in point},
}
ADDING: dict[str, Callable[[], None]] = {
    "before the old prompts are taken over": lambda: before(StagedPrompts, "settle"),
    "after the old prompts were taken over": lambda: after(StagedPrompts, "settle"),
    "between batches of rows": lambda: after(StagedPrompts, "add", call=2),
    "between numbering and its journal line": lambda: after(StagedPrompts, "number"),
    "between old shards": lambda: after(imprompt.indexer.staging, "link_file", call=3),
    "in the middle of a shard": lambda: in_the_middle_of_a_file(imprompt.store.shards, call=3),
    "between a shard and its journal line": lambda: after(
        imprompt.indexer.engine, "write_shard", call=3
    ),
    **PUBLISHING,
}


def main() -> None:
    verb, root, point = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if point == "signal":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        reindex(root)
    elif verb == "remove":
        REMOVING[point]()
        remove(root)
    elif verb == "dedupe":
        DEDUPING[point]()
        dedupe(root)
    elif verb == "reindex":
        REINDEXING[point]()
        reindex(root)
    else:
        ADDING[point]()
        add(root, Path(sys.argv[4]), BagPair(), BagOfWords("second"))


if __name__ == "__main__":
    main()
