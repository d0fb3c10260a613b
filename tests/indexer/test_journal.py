"""The journal of a build: what was appended is there, what was torn is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.values import RejectedRow
from imprompt.indexer.journal import Journal, Numbered, ShardDone
from imprompt.store.manifest import ShardRecord


def shard(number: int) -> ShardDone:
    record = ShardRecord(
        file=f"vectors/x/{number:05d}.npy",
        rows=3,
        bytes=7,
        sha256="0" * 64,
        provenance={"threads": 2},
    )
    return ShardDone(space="x", number=number, truncated=1, record=record)


NUMBERED = Numbered(
    rows=9, rows_digest="d", funnel={"read": 9}, rejected=[RejectedRow("a", "line 1", "empty")]
)


def test_keeps_what_was_appended(tmp_path: Path) -> None:
    """Entries come back in order, with all fields, from a journal opened several times."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(NUMBERED)
        journal.append(shard(0))
    with Journal(path) as journal:
        journal.append(shard(1))
    with Journal(path) as journal:
        assert journal.entries == [NUMBERED, shard(0), shard(1)]
        assert journal.numbered() == NUMBERED
        assert journal.shards() == {("x", 0): shard(0), ("x", 1): shard(1)}


def test_every_tear_loses_only_the_last_line(tmp_path: Path) -> None:
    """Cut within its last line, a journal keeps the lines before it; the next one is whole."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(NUMBERED)
        journal.append(shard(0))
    whole = path.read_bytes()
    begin = whole.index(b"\n") + 1
    for length in (*range(begin, len(whole), 23), len(whole) - 1):
        path.write_bytes(whole[:length])
        with Journal(path) as journal:
            assert journal.entries == [NUMBERED]
            journal.append(shard(5))
        with Journal(path) as journal:
            assert journal.entries == [NUMBERED, shard(5)]


@pytest.mark.parametrize(
    "junk", [b"\x00" * 40 + b"\n", b"{}\n", b'{"type":"later"}\n', b"\xff\n", b"\n"]
)
def test_nothing_behind_a_line_that_is_not_understood_counts(junk: bytes, tmp_path: Path) -> None:
    """From a line of zeros or of nonsense on, the work is done again."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(shard(0))
    content = path.read_bytes()
    path.write_bytes(content + junk + content)
    with Journal(path) as journal:
        assert journal.entries == [shard(0)]
    assert path.read_bytes() == content
