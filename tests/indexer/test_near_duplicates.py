"""Near duplicates: one of each group is kept, and each dropped row is near its kept row."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.indexer.duplicates import drop_near_duplicates
from imprompt.indexer.scratch_arrays import Scratch
from imprompt.indexer.word_sets import Rows, band_rows, collect_word_sets, words
from tests.indexer.near_duplicates_in_memory import drop_in_memory

THRESHOLDS = (0.6, 0.8, 0.9, 1.0)
TEXTS = st.lists(st.sampled_from("abcdefghij"), max_size=9).map(" ".join)
CORPORA = st.lists(st.tuples(TEXTS, st.integers(1, 4)), max_size=30)


def jaccard(left: str, right: str) -> float:
    """Counted the plain way, as the oracle; a text without words is near to nothing."""
    either = words(left) | words(right)
    return len(words(left) & words(right)) / len(either) if words(left) and words(right) else 0.0


def dropped_for(
    texts: Sequence[str],
    n_submitted: Sequence[int],
    threshold: float,
    *,
    size: int = 1000,
    settled: int = 0,
) -> list[int]:
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    counts = np.array(n_submitted, dtype=np.int64)
    with Scratch(Path(tempfile.gettempdir())) as scratch:
        kept_by, _ = drop_near_duplicates(
            batches, counts, scratch, threshold=threshold, settled=settled
        )
    return [int(row) for row in kept_by]


def dropped_in_memory(
    texts: Sequence[str],
    n_submitted: Sequence[int],
    threshold: float,
    *,
    settled: int = 0,
    bucket_rows: int = 256,
    chunk_rows: int = 8_192,
) -> list[int]:
    counts = np.array(n_submitted, dtype=np.int64)
    kept_by = drop_in_memory(
        [texts],
        counts,
        threshold=threshold,
        settled=settled,
        bucket_rows=bucket_rows,
        chunk_rows=chunk_rows,
    )
    return [int(row) for row in kept_by]


def broken_promises(
    texts: Sequence[str], n_submitted: Sequence[int], threshold: float, kept_by: Sequence[int]
) -> set[str]:
    """Which of the promises a result breaks."""
    broken = set()
    for row, kept in enumerate(kept_by):
        if kept_by[kept] != kept:
            broken.add("what stands for a row is kept")
        if row != kept and jaccard(texts[row], texts[kept]) < threshold:
            broken.add("a dropped row is near its kept row")
        if row != kept and (-n_submitted[kept], kept) > (-n_submitted[row], row):
            broken.add("the one with most submissions is kept, then the first")
    kept_sets = [
        frozenset(words(texts[row]))
        for row, kept in enumerate(kept_by)
        if row == kept and words(texts[row])
    ]
    if len(set(kept_sets)) < len(kept_sets):
        broken.add("of rows with the same words one is kept")
    return broken


@settings(max_examples=150)
@given(CORPORA, st.sampled_from(THRESHOLDS))
def test_one_of_each_group_is_kept(corpus: list[tuple[str, int]], threshold: float) -> None:
    """Never all or none of a group, by submissions and row; dropped rows are near theirs."""
    texts, n_submitted = [text for text, _ in corpus], [n for _, n in corpus]
    assert (
        broken_promises(texts, n_submitted, threshold, dropped_for(texts, n_submitted, threshold))
        == set()
    )


HOSTILE = st.one_of(
    st.lists(
        st.sampled_from(["", "...", "a", "A", "b", "a b", "b  a", "漢字", "漢 字"]), max_size=40
    ),
    # Chains: each is near its neighbours, and far from those further on.
    st.integers(1, 60).map(lambda n: [" ".join(f"w{i + j}" for j in range(9)) for i in range(n)]),
    # Templates: long equal beginnings, so that many rows share a bucket.
    st.lists(st.integers(0, 9), max_size=60).map(
        lambda ends: [" ".join([*(f"t{i}" for i in range(20)), f"end{end}"]) for end in ends]
    ),
    st.lists(TEXTS, max_size=60),
)


@settings(max_examples=100, deadline=None)
@given(st.data(), HOSTILE, st.sampled_from(THRESHOLDS))
def test_the_same_rows_as_in_memory(
    data: st.DataObject, texts: list[str], threshold: float
) -> None:
    """Rows kept and what stands for the others are to the row those of the plain computation.

    With windows of a page, tiny blocks, buckets and chunks, and several ranges of hashes.
    """
    n_submitted = data.draw(st.lists(st.integers(1, 3), min_size=len(texts), max_size=len(texts)))
    settled = data.draw(st.integers(0, len(texts)))
    bucket_rows = data.draw(st.sampled_from([1, 3, 256]))
    chunk_rows = data.draw(st.sampled_from([1, 5, 8_192]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imprompt.indexer.duplicates._BUCKET_ROWS", bucket_rows)
        patch.setattr("imprompt.indexer.duplicates._CHUNK_ROWS", chunk_rows)
        patch.setattr("imprompt.indexer.duplicates._PAIRS_AT_ONCE", 9)
        patch.setattr("imprompt.indexer.word_sets._SORTED_AT_ONCE", 5)
        patch.setattr("imprompt.indexer.scratch_arrays._WINDOW_BYTES", 64)
        patch.setattr("imprompt.indexer.scratch_arrays._BLOCK_ROWS", 7)
        patch.setattr("imprompt.indexer.scratch_arrays.ScratchArray._release", lambda *_: None)
        found = dropped_for(texts, n_submitted, threshold, size=11, settled=settled)
    assert found == dropped_in_memory(
        texts,
        n_submitted,
        threshold,
        settled=settled,
        bucket_rows=bucket_rows,
        chunk_rows=chunk_rows,
    )


@pytest.mark.parametrize("threshold", [0.6, 0.9])
def test_the_same_rows_of_a_larger_corpus(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty thousand rows of which a third have near duplicates, over several chunks."""
    monkeypatch.setattr("imprompt.indexer.scratch_arrays._WINDOW_BYTES", 4096)
    rng = np.random.default_rng(5)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 4000, 12)) for _ in range(14_000)]
    for row in rng.integers(0, len(texts), 6_000):
        texts.append(" ".join([*texts[row].split()[: rng.integers(9, 13)], f"x{row % 7}"]))
    n_submitted = rng.integers(1, 4, len(texts)).tolist()
    expected = dropped_in_memory(texts, n_submitted, threshold, settled=100)
    assert sum(kept != row for row, kept in enumerate(expected)) > 500
    assert dropped_for(texts, n_submitted, threshold, settled=100) == expected


def delete_all(texts: Sequence[str], threshold: float) -> list[int]:
    """The classic mistake: every row that has a near duplicate goes."""
    near = [
        [j for j in range(len(texts)) if j != i and jaccard(texts[i], texts[j]) >= threshold]
        for i in range(len(texts))
    ]
    return [found[0] if found else i for i, found in enumerate(near)]


def keep_all(texts: Sequence[str], threshold: float) -> list[int]:
    """The other one."""
    return list(range(len(texts)))


def chained(texts: Sequence[str], threshold: float) -> list[int]:
    """Single linkage: a chain of near rows is one group, however far apart its ends are."""
    group = list(range(len(texts)))
    for i, j in itertools.combinations(range(len(texts)), 2):
        if jaccard(texts[i], texts[j]) >= threshold:
            group = [group[i] if one == group[j] else one for one in group]
    return [group.index(one) for one in group]


def test_the_promises_catch_the_usual_mistakes() -> None:
    """Dropping all of a group, keeping all, and chaining each break a promise of ours."""
    texts = ["a b c d", "d c b a", "a b c d e", "b c d e f", "c d e f g", "x"]
    n_submitted = [1] * len(texts)
    assert broken_promises(texts, n_submitted, 0.6, dropped_for(texts, n_submitted, 0.6)) == set()
    assert "what stands for a row is kept" in broken_promises(
        texts, n_submitted, 0.6, delete_all(texts, 0.6)
    )
    assert "of rows with the same words one is kept" in broken_promises(
        texts, n_submitted, 0.6, keep_all(texts, 0.6)
    )
    assert "a dropped row is near its kept row" in broken_promises(
        texts, n_submitted, 0.6, chained(texts, 0.6)
    )
    assert broken_promises(texts, [1, 2, 1, 1, 1, 1], 0.6, [0, 0, 0, 3, 3, 5]) != set()


def test_by_submissions_then_by_row() -> None:
    """The most submitted row is kept, then the first; the number of words does not count."""
    texts = ["a b c d e", "a b c d e f", "e d c b a", "z"]
    assert dropped_for(texts, [1, 5, 1, 1], 0.8) == [1, 1, 1, 3]
    assert dropped_for(texts, [1, 1, 1, 1], 0.8) == [0, 0, 0, 3]


def test_the_threshold_is_reached_by_equality() -> None:
    """Four words of five are .8, and that is near at .8; at .81 it is not."""
    assert dropped_for(["a b c d e", "a b c d"], [1, 1], 0.8) == [0, 0]
    assert dropped_for(["a b c d e", "a b c d"], [1, 1], 0.81) == [0, 1]


def test_texts_without_words_are_near_to_nothing() -> None:
    """Texts without words are kept, even several; an empty corpus gives an empty result."""
    assert dropped_for(["🎨", "🎨🎨", "...", ""], [1, 1, 1, 1], 0.6) == [0, 1, 2, 3]
    assert dropped_for([], [], 0.8) == []


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on batch sizes."""
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 14, 9)) for _ in range(600)]
    n_submitted = rng.integers(1, 5, len(texts)).tolist()
    expected = dropped_for(texts, n_submitted, 0.6)
    assert len(set(expected)) < 550
    assert dropped_for(texts, n_submitted, 0.6, size=1) == expected
    monkeypatch.setattr("imprompt.indexer.duplicates._CHUNK_ROWS", 7)
    monkeypatch.setattr("imprompt.indexer.duplicates._PAIRS_AT_ONCE", 11)
    assert dropped_for(texts, n_submitted, 0.6, size=17) == expected
    assert broken_promises(texts, n_submitted, 0.6, expected) == set()


def test_settled_rows_stay() -> None:
    """Rows of an index that is added to are kept even if near each other; new ones are not."""
    texts = ["a b c d", "a b c d e", "a b c d e f", "x y z", "z y x"]
    assert dropped_for(texts, [1, 1, 9, 1, 1], 0.6, settled=2) == [0, 1, 0, 3, 3]
    assert dropped_for(texts, [1, 1, 9, 1, 1], 0.6) == [2, 2, 2, 3, 3]


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8, 0.9, 0.95])
def test_recall_at_the_threshold(threshold: float) -> None:
    """Of pairs that are just near enough, at least 97 of 100 share a bucket; nearer ones more."""
    common = 40
    extra = round(common / threshold) - common
    assert common / (common + extra) == pytest.approx(threshold, abs=0.01)
    texts = []
    for pair in range(400):
        shared = " ".join(f"p{pair}w{i}" for i in range(common))
        texts += [shared, f"{shared} {' '.join(f'p{pair}x{i}' for i in range(extra))}"]
    reached = common / (common + extra)
    kept_by = dropped_for(texts, [1] * len(texts), reached)
    found = sum(kept_by[row + 1] == row for row in range(0, len(texts), 2))
    assert found >= 0.97 * 400
    assert band_rows(threshold) >= 1


@given(st.lists(TEXTS, min_size=2, max_size=12))
def test_likeness_is_counted_exactly(texts: list[str]) -> None:
    """The Jaccard index is the plain one, and the quick bound never excludes a near pair."""
    pairs = [
        (i, j)
        for i, j in itertools.product(range(len(texts)), repeat=2)
        if words(texts[i]) and words(texts[j])
    ]
    left: Rows = np.array([i for i, _ in pairs], dtype=np.int64)
    right: Rows = np.array([j for _, j in pairs], dtype=np.int64)
    exact = np.array([jaccard(texts[i], texts[j]) for i, j in pairs])
    with Scratch(Path(tempfile.gettempdir())) as scratch:
        sets = collect_word_sets([texts], scratch, threshold=0.6)
        np.testing.assert_array_equal(sets.jaccard(left, right), exact)
        for threshold in THRESHOLDS:
            assert sets.may_reach(left, right, threshold)[exact >= threshold].all()


def test_one_template_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """If thousands share a bucket, a row is compared with a limited number of them."""
    monkeypatch.setattr("imprompt.indexer.duplicates._BUCKET_ROWS", 4)
    shared = " ".join(f"s{i}" for i in range(12))
    texts = [f"{shared} {' '.join(f'r{row}x{i}' for i in range(9))}" for row in range(300)]
    doubled = [*texts, *texts]
    kept_by = dropped_for(doubled, [1] * len(doubled), 0.9)
    assert broken_promises(doubled, [1] * len(doubled), 0.9, kept_by) <= {
        "of rows with the same words one is kept"
    }
    assert sum(kept == row for row, kept in enumerate(kept_by)) < 400
