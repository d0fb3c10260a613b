"""Similar prompts: one of each group stays, near all that it stands for, and counts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError, IndexDiffers, NoIndex
from imprompt.core.progress import SILENT
from imprompt.core.values import Ids, Vectors, unit_rows
from imprompt.indexer import rewriting
from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.semantic_duplicates import _near, _scratch_index, dedupe_similar, keep_one
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.shards import ShardedVectors
from tests.indexer.doubles import BagPair
from tests.store.builders import write_shards

COSINE = 0.9
Neighbours = list[tuple[Ids, NDArray[np.float32]]]
Dedupe = Callable[[Ids, Neighbours], Ids]


def neighbours_of(vectors: Vectors) -> Neighbours:
    """All rows of each row that reach the cosine, falling, by looking at all pairs."""
    found = []
    for row, scores in enumerate(vectors @ vectors.T):
        ids = np.array(
            [i for i in np.argsort(-scores, kind="stable") if i != row and scores[i] >= COSINE],
            dtype=np.int64,
        )
        found.append((ids, scores[ids]))
    return found


def check(dedupe: Dedupe, vectors: Vectors, n_submitted: Ids) -> None:
    """Check any result: dropped rows are near a kept one, and no two kept rows are near."""
    kept_by = dedupe(n_submitted, neighbours_of(vectors))
    rows = np.arange(len(vectors))
    kept = kept_by == rows
    for row in rows[~kept]:
        assert kept[kept_by[row]]
        assert vectors[row] @ vectors[kept_by[row]] >= COSINE
        assert (-n_submitted[kept_by[row]], kept_by[row]) < (-n_submitted[row], row)
    near = (vectors[kept] @ vectors[kept].T >= COSINE) & ~np.eye(kept.sum(), dtype=bool)
    assert not near.any()


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Vectors, Ids]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 40))
    centres = rng.standard_normal((draw(st.integers(1, 6)), 6))
    vectors = unit_rows(
        centres[rng.integers(0, len(centres), n)]
        + draw(st.sampled_from([0.05, 0.3])) * rng.standard_normal((n, 6))
    )
    return vectors, rng.integers(1, 4, n)


@given(corpora())
def test_one_of_each_group_is_kept(corpus: tuple[Vectors, Ids]) -> None:
    """By most submissions, then first row; distances are to the kept row, not along a chain."""
    check(lambda n_submitted, neighbours: keep_one(n_submitted, neighbours, cosine=COSINE), *corpus)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda n, _: (np.arange(len(n)) + 1) % len(n), id="keeps none"),
        pytest.param(lambda n, _: np.arange(len(n)), id="keeps all"),
        pytest.param(lambda n, _: np.zeros(len(n), dtype=np.int64), id="keeps one of everything"),
    ],
)
def test_the_check_notices(wrong: Dedupe) -> None:
    """Results that lose a group, or drop nothing, do not pass."""
    vectors = unit_rows(np.array([[1, 0, 0], [1, 0.01, 0], [0, 1, 0], [0, 1, 0.01]]))
    with pytest.raises(AssertionError):
        check(wrong, vectors, np.array([1, 1, 1, 1]))


def test_an_inverted_file_finds_nearly_all(tmp_path: Path) -> None:
    """Among 6,000 rows hardly a pair at the cosine is missed, and none is invented.

    300 equal rows are all found.
    """
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((900, 32))
    rows = unit_rows(centres[rng.integers(0, 900, 6000)] + 0.15 * rng.standard_normal((6000, 32)))
    rows[:300] = rows[0]
    vectors = ShardedVectors(tmp_path, write_shards(tmp_path, rows, shard_rows=2000))
    index, effort = _scratch_index(tmp_path, vectors, seed=0, progress=SILENT)
    block = vectors.block(0, 500)
    found = list(_near(index, block, cosine=COSINE, effort=effort))
    exact = list(_near(ExactIndex(vectors), block, cosine=COSINE, effort=1.0))
    pairs, true_pairs = (
        {(row, int(i)) for row, (ids, _) in enumerate(part) for i in ids} for part in (found, exact)
    )
    assert pairs <= true_pairs
    assert len(pairs) >= 0.98 * len(true_pairs) > 90_000
    assert effort < 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve prompts: words in another order give `BagPair` equal vectors."""
    corpus = tmp_path / "corpus.csv"
    lines = [
        "red cat on blue hill",
        "blue cat on red hill",
        "hill on red blue cat",
        "a lighthouse at dusk",
        "dusk at a lighthouse",
    ]
    lines += [
        f"a {word} of its own kind {word}"
        for word in ("clock", "river", "forest", "engine", "meadow", "harbour", "desert")
    ]
    counts = [1, 5, 2, 1, 1, *[1] * 7]
    corpus.write_text(
        "prompt,n_submitted\n"
        + "\n".join(f"{line},{count}" for line, count in zip(lines, counts, strict=True))
    )
    options = BuildOptions(shard_rows=5, cleaning=Cleaning(near_duplicates=None))
    build_index(tmp_path / "index", [parse_corpus(str(corpus))], BagPair(), options=options)
    return tmp_path / "index"


def rows_of(root: Path) -> list[tuple[str, int, int]]:
    with open_version(root) as version:
        prompts = version.prompts.get_many(range(len(version.prompts)))
        assert [prompt.row_id for prompt in prompts] == list(range(version.manifest.rows))
        return [(prompt.text, prompt.n_submitted, prompt.n_duplicates) for prompt in prompts]


def test_the_kept_one_counts_the_others(root: Path) -> None:
    """The most submitted stays, or the first; submissions add up; funnel and index agree."""
    before = rows_of(root)
    report = dedupe_similar(root, cosine=0.99)
    after = rows_of(root)
    assert report.duplicates == 3
    assert after[0] == ("blue cat on red hill", 8, 2)
    assert after[1] == ("a lighthouse at dusk", 2, 1)
    assert after[2:] == before[5:]
    assert report.manifest.funnel["semantic duplicate"] == 3
    assert report.manifest.funnel["kept"] == report.manifest.rows == 9
    assert not list(verify(root))


def test_again_there_is_nothing_to_do(root: Path) -> None:
    """The same call on its own result drops nothing and publishes nothing."""
    first = dedupe_similar(root, cosine=0.99)
    again = dedupe_similar(root, cosine=0.99)
    assert again.duplicates == 0
    assert again.manifest.version == first.manifest.version


def test_a_broken_pass_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before publishing, the old index answers, and a rerun completes."""
    before = rows_of(root)
    with monkeypatch.context() as patch:
        patch.setattr(rewriting, "index_and_publish", _broken)
        with pytest.raises(KeyboardInterrupt):
            dedupe_similar(root, cosine=0.99)
    assert rows_of(root) == before
    assert dedupe_similar(root, cosine=0.99).duplicates == 3
    assert not (root / "staging").exists() or not list((root / "staging").iterdir())


def _broken(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_building_again_does_not_undo_it(root: Path, tmp_path: Path) -> None:
    """The same build is refused, unless it is meant."""
    dedupe_similar(root, cosine=0.99)
    options = BuildOptions(shard_rows=5, cleaning=Cleaning(near_duplicates=None))
    with pytest.raises(IndexDiffers, match="3 prompts were dropped as duplicates"):
        build_index(root, [parse_corpus(str(tmp_path / "corpus.csv"))], BagPair(), options=options)


@pytest.mark.parametrize("cosine", [0.4, 1.1, float("nan")])
def test_cosines_that_make_no_sense(root: Path, cosine: float) -> None:
    """Refused by value."""
    with pytest.raises(ConfigError, match=f"--cosine {cosine:g} is out of range"):
        dedupe_similar(root, cosine=cosine)


def test_without_an_index(tmp_path: Path) -> None:
    """There is nothing to drop."""
    with pytest.raises(NoIndex):
        dedupe_similar(tmp_path / "none", cosine=0.95)
