"""Phrases are encoded once for an encoder, kept, and ranked alike in any company."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from imprompt.core.settings import settings
from imprompt.core.values import Vectors, unit_rows
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.ensemble.interrogator import phrase_vectors
from imprompt.ensemble.interrogator.phrase_vectors import PhraseTable, phrase_table
from tests.indexer.doubles import BagPair

LABELS = tuple(f"label {n} of {n % 7} and {n % 5}" for n in range(60))


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files of the cache for few labels, in a cache of this test's own."""
    monkeypatch.setattr(phrase_vectors, "BLOCK_LABELS", 25)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Announced:
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


def encoded(pair: BagPair, labels: Sequence[str] = LABELS) -> Vectors:
    return phrase_table(labels, pair, announce=Announced()).rows


def kept() -> list[Path]:
    return sorted((settings().cache / "phrases").rglob("*.safetensors"))


def test_nothing_is_encoded_twice() -> None:
    """The second table comes from the cache, bit for bit; rows have half precision."""
    first, second = BagPair(), BagPair()
    rows = encoded(first)
    np.testing.assert_array_equal(encoded(second), rows)
    assert (first.texts.seen, second.texts.seen) == ([25, 25, 10], [])
    np.testing.assert_array_equal(
        rows, BagPair().texts.encode(LABELS).astype(np.float16).astype(np.float32)
    )


def test_another_encoder_or_another_list_is_encoded() -> None:
    """Encoders and labels do not share rows; blocks that two lists share are encoded once."""
    encoded(BagPair())
    other = BagPair("other")
    encoded(other)
    assert other.texts.seen == [25, 25, 10]
    grown = BagPair()
    assert encoded(grown, (*LABELS, "one more")).shape == (61, grown.spec.dim)
    assert grown.texts.seen == [11]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "gone"])
def test_a_damaged_file_is_made_again(damage: str) -> None:
    """It is not trusted, costs its own block only, and is whole afterwards."""
    rows = encoded(BagPair())
    path = kept()[1]
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "foreign":
        path.write_bytes(kept()[0].read_bytes()[:-1] + b"\x00")
    else:
        path.write_bytes(
            {
                "cut": content[:-9],
                "flipped": content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
                "empty": b"",
            }[damage]
        )
    again, once_more = BagPair(), BagPair()
    np.testing.assert_array_equal(encoded(again), rows)
    assert len(again.texts.seen) == 1
    np.testing.assert_array_equal(encoded(once_more), rows)
    assert once_more.texts.seen == []


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    """The rows are the same; no error, no file."""
    (tmp_path / "cache").write_text("a file stands where the folder should be", "utf-8")
    first, second = BagPair(), BagPair()
    np.testing.assert_array_equal(encoded(first), encoded(second))
    assert second.texts.seen == [25, 25, 10]


def test_a_break_costs_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was encoded before the break is there for the next run."""
    broken, after = BagPair(), BagPair()
    encode = broken.texts.encode

    def fails(items: Sequence[str]) -> Vectors:
        if len(broken.texts.seen) == 2:
            raise KeyboardInterrupt
        return encode(items)

    monkeypatch.setattr(broken.texts, "encode", fails)
    with pytest.raises(KeyboardInterrupt):
        encoded(broken)
    encoded(after)
    assert after.texts.seen == [10]


def test_long_work_is_announced_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with the number, before many labels are encoded; none if they are cached."""
    monkeypatch.setattr(phrase_vectors, "_ANNOUNCED", 50)
    for expected in (1, 0):
        announced = Announced()
        phrase_table(LABELS, BagPair(), announce=announced)
        assert len(announced.lines) == expected
        assert all(
            re.search(r"60 phrases for the interrogator, once, in about \d+ s;", line)
            for line in announced.lines
        )


def test_all_heads_of_lite_share_what_minilm_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds MiniLM's rows; the pair's own rows are derived from them."""
    labels = ("an oil painting", "a photo")
    pair: LiteEncoder = load_lite()
    rows = phrase_table(labels, pair, announce=Announced()).rows
    np.testing.assert_allclose(rows, pair.texts.encode(labels), atol=1e-3)
    monkeypatch.setattr(type(pair.minilm), "encode", None)
    np.testing.assert_array_equal(
        phrase_table(labels, load_lite(), announce=Announced()).rows, rows
    )


def test_ranking_is_that_of_a_full_sort() -> None:
    """For every n and batch size; too many labels give all of them, none give none."""
    rng = np.random.default_rng(0)
    rows = unit_rows(rng.standard_normal((300, 12))).astype(np.float16).astype(np.float32)
    rows[200] = rows[17]  # equal labels stand in their order
    table = PhraseTable(tuple(map(str, range(300))), rows)
    pictures = unit_rows(np.concatenate([rng.standard_normal((290, 12)), rows[17:18]]))
    order = np.argsort(
        -(pictures.astype(np.float64) @ rows.T.astype(np.float64)), axis=1, kind="stable"
    )
    for n in (1, 3, 40, 300, 1000):
        assert table.top(pictures, n) == [[str(place) for place in row] for row in order[:, :n]]
    assert [table.top(pictures[at : at + 1], 3)[0] for at in range(len(pictures))] == table.top(
        pictures, 3
    )
    assert table.top(pictures[-1:], 2) == [["17", "200"]]
    assert table.top(pictures[:2], 0) == [[], []]
    assert table.top(pictures[:0], 3) == []
