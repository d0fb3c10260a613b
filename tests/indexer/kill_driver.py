"""Build an index and be killed at a named point; a program that `test_kills.py` runs.

    python tests/indexer/kill_driver.py ROOT CORPUS POINT

The points wrap functions of the product from outside; the product knows nothing of them. POINT
"none" kills nowhere, "signal" says "ready" once everything is imported, then builds slowly enough
to be killed from outside.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import imprompt.indexer.duplicates
import imprompt.indexer.engine
import imprompt.indexer.journal
import imprompt.indexer.numbering
import imprompt.indexer.staging
import imprompt.store.publish
import imprompt.store.shards
from imprompt.core.values import Vectors
from imprompt.indexer.build import BuildOptions, BuildReport, build_index
from imprompt.indexer.cleaning_rules import Rules
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.staged_prompts import StagedPrompts
from tests.indexer.doubles import BagPair
from tests.killing import after, before, die, in_the_middle_of_a_file

READ_ROWS = 100
SHARD_ROWS = 64


def build(root: Path, corpus: Path, pair: BagPair) -> BuildReport:
    """Run the command that is interrupted and repeated."""
    imprompt.indexer.engine.READ_ROWS = READ_ROWS
    options = BuildOptions(shard_rows=SHARD_ROWS, replace=True)
    return build_index(root, [parse_corpus(str(corpus))], pair, options=options)


def in_the_middle_of_a_journal_line() -> None:
    write_whole, calls = imprompt.indexer.journal.write_whole, [0]

    def torn(descriptor: int, content: bytes) -> None:
        calls[0] += 1
        if calls[0] == 4:
            os.write(descriptor, content[: len(content) // 2])
            die()
        write_whole(descriptor, content)

    imprompt.indexer.journal.write_whole = torn


PUBLISHING: dict[str, Callable[[], None]] = {
    "in the middle of a journal line": in_the_middle_of_a_journal_line,
    "before publishing": lambda: before(imprompt.indexer.staging, "publish"),
    "in the middle of the manifest": lambda: in_the_middle_of_a_file(
        imprompt.store.publish, call=1
    ),
    "between the manifest and the first rename": lambda: before(Path, "rename"),
    "between the renames": lambda: after(Path, "rename"),
    "in the middle of the pointer": lambda: in_the_middle_of_a_file(imprompt.store.publish, call=2),
    "after publishing": lambda: after(imprompt.indexer.staging, "publish"),
}
"""The end of every change of an index."""

POINTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "within a batch of rows": lambda: before(Rules, "apply", call=2),
    "between batches of rows": lambda: after(StagedPrompts, "add", call=3),
    "before dropping duplicates": lambda: before(imprompt.indexer.numbering, "drop_duplicates"),
    "while dropping equal prompts": lambda: after(StagedPrompts, "drop_equal"),
    "while dropping near duplicates": lambda: after(
        imprompt.indexer.duplicates, "collect_word_sets"
    ),
    "between chunks of near duplicates": lambda: after(
        imprompt.indexer.duplicates._KeptRows, "add"
    ),
    "before numbering": lambda: before(StagedPrompts, "number"),
    "between numbering and its journal line": lambda: after(StagedPrompts, "number"),
    "before a shard": lambda: before(imprompt.indexer.engine, "write_shard", call=3),
    "in the middle of a shard": lambda: in_the_middle_of_a_file(imprompt.store.shards, call=3),
    "between a shard and its journal line": lambda: after(
        imprompt.indexer.engine, "write_shard", call=3
    ),
    **PUBLISHING,
}


class SlowPair(BagPair):
    """Encodes a shard in no less than 20 ms, so that a kill from outside finds every stage."""

    def __init__(self) -> None:
        super().__init__()
        encode = self.texts.encode

        def slow(items: Sequence[str]) -> Vectors:
            time.sleep(0.02)
            return encode(items)

        self.texts.encode = slow  # type: ignore[method-assign]


def main() -> None:
    root, corpus, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if point == "signal":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        build(root, corpus, SlowPair())
        return
    POINTS[point]()
    build(root, corpus, BagPair())


if __name__ == "__main__":
    main()
