"""The inverted file: recall, answers independent of k, batch and threads, filters, and damage."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from imprompt.core.errors import Checksum, ConfigError
from imprompt.core.values import Hits, Selection, Vectors, unit_rows
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_plan import index_bytes
from imprompt.store.indexes import (
    WANTED_OF_FEWER,
    WANTED_RECALL,
    build_index_file,
    measured,
    open_index,
    recall,
)
from imprompt.store.ivf.ivf_files import CheckedLists
from imprompt.store.ivf.ivf_index import POOL, IvfIndex, effort_of, nprobe_of
from imprompt.store.ivf.ivf_lists import second_lists
from imprompt.store.manifest import IndexInfo
from imprompt.store.shards import ShardedVectors
from tests.store.builders import write_shards

ROWS, DIM = 8_000, 48
FILE = "index/toy.faiss"


def clustered(n: int, *, seed: int = 0) -> Vectors:
    """(n, 48) unit rows around 300 centres: neither one cloud nor easy to tell apart."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((300, DIM))
    return unit_rows(centres[rng.integers(0, 300, n)] + 0.8 * rng.standard_normal((n, DIM)))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> ShardedVectors:
    folder = tmp_path_factory.mktemp("vectors")
    return ShardedVectors(folder, write_shards(folder, clustered(ROWS), shard_rows=1000))


def built(folder: Path, vectors: ShardedVectors, factory: str = "IVF64x2,PQ12x4fs") -> IndexInfo:
    queries = clustered(64, seed=1)
    info = build_index_file(folder, FILE, vectors, factory=factory)
    exact = ExactIndex(vectors).search(queries, 10)
    return measured(open_index(folder, info, vectors), info, queries=queries, exact=exact)


@pytest.mark.parametrize(
    "factory",
    [
        "IVF64,PQ12x4fs",
        "IVF64x2,PQ12x4fs",
        "IVF64,RaBitQ",
        "IVF64x2,RaBitQ",
        "IVF64,SQ8",
        "IVF64x2,SQ8",
        "IVF64,SQ4",
    ],
)
def test_recall(vectors: ShardedVectors, tmp_path: Path, factory: str) -> None:
    """With the measured effort, recall holds for other queries too, without visiting all lists.

    The codes of 4 bits for 4 of 48 values lose more than those of 384 values, for which the recall
    that is wanted was chosen.
    """
    info = built(tmp_path, vectors, factory)
    queries = clustered(200, seed=2)
    exact = ExactIndex(vectors).search(queries, 10)
    index = open_index(tmp_path, info, vectors)
    assert info.recall_at_10 >= WANTED_RECALL
    assert recall(exact, index.search(queries, 10)) >= WANTED_RECALL - 0.03
    assert nprobe_of(info.effort, 64) < 64
    assert recall(exact, index.search(queries, 10, effort=0.0)) < recall(
        exact, index.search(queries, 10)
    )


def test_fewer_than_a_million_rows_are_found_better(
    vectors: ShardedVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least effort that is tried reaches what is wanted; of many rows less is wanted."""
    few = built(tmp_path, vectors, "IVF64,SQ8")
    assert few.recall_at_10 >= WANTED_OF_FEWER
    monkeypatch.setattr("imprompt.store.indexes.MANY_ROWS", ROWS)
    many = built(tmp_path, vectors, "IVF64,SQ8")
    assert WANTED_RECALL <= many.recall_at_10 < WANTED_OF_FEWER
    assert many.effort < few.effort


@pytest.mark.parametrize("part_rows", [ROWS, 1_100])
@pytest.mark.parametrize(
    "factory",
    [
        "IVF64,PQ12x4fs",
        "IVF64x2,PQ12x4fs",
        "IVF64,RaBitQ",
        "IVF64,SQ8",
        "IVF4096,RaBitQ",
        "IVF4096x2,RaBitQ",
        "SQfp16",
    ],
)
def test_predicted_bytes(
    vectors: ShardedVectors, tmp_path: Path, factory: str, part_rows: int
) -> None:
    """The length of the files is within 15 % of what the plan says, for one file and for eight."""
    info = build_index_file(tmp_path, FILE, vectors, factory=factory, part_rows=part_rows)
    assert len(info.files) == (8 if part_rows < ROWS and factory != "SQfp16" else 1)
    assert {*info.files} == {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.faiss")
    }
    measured_bytes = sum((tmp_path / file).stat().st_size for file in info.files)
    assert measured_bytes == pytest.approx(
        index_bytes(factory, rows=ROWS, dim=DIM, part_rows=part_rows), rel=0.15
    )


@pytest.mark.parametrize(
    "factory", ["IVF64,PQ12x4fs", "IVF64x2,PQ12x4fs", "IVF64x2,RaBitQ", "IVF64,SQ8", "IVF64,SQfp16"]
)
def test_parts_answer_as_one_file(vectors: ShardedVectors, tmp_path: Path, factory: str) -> None:
    """Eight parts give what one file gives, to the bit, at any effort, k and filter.

    Scores of blocks are whole numbers, so that rows tie at the end of the pool, and another order
    leaves out others of them: there k is asked for that the pool's end does not reach.
    """
    whole_info = build_index_file(tmp_path, FILE, vectors, factory=factory)
    parts_info = build_index_file(
        tmp_path, "index/other.faiss", vectors, factory=factory, part_rows=1_100
    )
    whole, parts = (
        open_index(tmp_path, whole_info, vectors),
        open_index(tmp_path, parts_info, vectors, mapped=False),
    )
    queries = clustered(20, seed=10)
    wide = 200 if "fs" not in factory else 20
    for k, selection in (
        (10, None),
        (wide, None),
        (10, Selection(np.arange(0, ROWS, 3))),
        (wide // 4, Selection(np.arange(4_000, 5_000))),
    ):
        for effort in (0.0, 0.4, 0.8):
            left, right = (
                index.search(queries, k, effort=effort, selection=selection)
                for index in (whole, parts)
            )
            assert (left.ids == right.ids).all()
            assert (left.scores == right.scores).all()


@pytest.mark.parametrize("factory", ["IVF64,PQ12x4fs", "IVF64x2,RaBitQ"])
def test_a_part_is_missing_changed_or_another(
    vectors: ShardedVectors, tmp_path: Path, factory: str
) -> None:
    """Every part is looked at before FAISS reads it.

    Its length, and the hash of what FAISS interprets; none is left out.
    """
    info = build_index_file(tmp_path, FILE, vectors, factory=factory, part_rows=3_000)
    assert [part.rows for part in info.parts] == [2_666, 2_667, 2_667]
    for part in info.parts:
        path = tmp_path / part.file
        whole = path.read_bytes()
        for content in (
            whole[:-1],
            whole + b"\0",
            b"",
            whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        ):
            path.write_bytes(content)
            with pytest.raises(Checksum, match=path.name):
                open_index(tmp_path, info, vectors)
        path.unlink()
        with pytest.raises(Checksum, match=rf"{path.name} cannot be read"):
            open_index(tmp_path, info, vectors)
        path.write_bytes(whole)
    for parts in (info.parts[:2], [*info.parts, info.parts[2]], info.parts[::-1]):
        with pytest.raises(Checksum, match=r"do not hold 8000 rows|is not the"):
            open_index(tmp_path, msgspec.structs.replace(info, parts=parts), vectors)


@pytest.mark.parametrize("factory", ["IVF64,PQ12x4fs", "IVF64x2,PQ12x4fs"])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_prefixes(
    vectors: ShardedVectors, tmp_path: Path, k: int, filtered: bool, factory: str
) -> None:
    """The first k of 128 are the answer for k, with and without a filter, to the bit."""
    index = open_index(tmp_path, built(tmp_path, vectors, factory), vectors)
    queries = clustered(30, seed=3)
    selection = Selection(np.arange(0, ROWS, 3)) if filtered else None
    wide, narrow = (
        index.search(queries, POOL, selection=selection),
        index.search(queries, k, selection=selection),
    )
    assert (wide.ids[:, :k] == narrow.ids).all()
    assert (wide.scores[:, :k] == narrow.scores).all()


@pytest.mark.parametrize("factory", ["IVF64,PQ12x4fs", "IVF64x2,PQ12x4fs"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches(vectors: ShardedVectors, tmp_path: Path, size: int, factory: str) -> None:
    """Alone, in sevens and in batches of 64: the same bits."""
    index = open_index(tmp_path, built(tmp_path, vectors, factory), vectors)
    queries = clustered(64, seed=4)
    parts = [index.search(queries[start : start + size], 12) for start in range(0, 64, size)]
    whole = index.search(queries, 12)
    assert (np.concatenate([part.ids for part in parts]) == whole.ids).all()
    assert (np.concatenate([part.scores for part in parts]) == whole.scores).all()


def test_more_rows_are_scored_again_with_more_lists(
    vectors: ShardedVectors, tmp_path: Path
) -> None:
    """With nearly all lists more candidates than `POOL` are looked at.

    Rows behind the first `POOL` codes come, too.
    """
    info = build_index_file(tmp_path, FILE, vectors, factory="IVF1024,PQ12x4fs")
    index = open_index(tmp_path, info, vectors)
    queries = clustered(60, seed=11)
    exact = ExactIndex(vectors).search(queries, POOL)
    assert (
        recall(exact, index.search(queries, POOL, effort=0.99))
        > recall(exact, index.search(queries, POOL, effort=0.7)) + 0.05
    )


@pytest.mark.parametrize("factory", ["IVF64,PQ12x4fs", "IVF64x2,PQ12x4fs"])
@pytest.mark.parametrize("share", [2, 10, 40, 2000])
def test_k_rows_come_where_k_rows_are_allowed(
    vectors: ShardedVectors, tmp_path: Path, share: int, factory: str
) -> None:
    """Where a filter leaves k rows, k are answered, each once, all of them allowed and in order."""
    index = open_index(tmp_path, built(tmp_path, vectors, factory), vectors)
    allowed = np.arange(0, ROWS, share)
    for k in (10, 300, 2048):
        hits = index.search(clustered(5, seed=5), k, effort=0.0, selection=Selection(allowed))
        found = hits.ids >= 0
        assert (found.sum(axis=1) == min(k, len(allowed))).all()
        assert np.isin(hits.ids[found], allowed).all()
        assert all(len(np.unique(ids[ids >= 0])) == (ids >= 0).sum() for ids in hits.ids)
        assert (hits.scores[:, :-1] >= hits.scores[:, 1:]).all()


@pytest.mark.parametrize("factory", ["IVF64,PQ12x4fs", "IVF64x2,RaBitQ"])
def test_a_large_k_without_a_filter(vectors: ShardedVectors, tmp_path: Path, factory: str) -> None:
    """2,048 rows come also from the least effort, each once."""
    hits = open_index(tmp_path, built(tmp_path, vectors, factory), vectors).search(
        clustered(2, seed=6), 2048, effort=0.0
    )
    assert all(len(np.unique(ids)) == 2048 and ids.min() >= 0 for ids in hits.ids)


@pytest.mark.slow
def test_the_same_build_gives_the_same_bytes(vectors: ShardedVectors, tmp_path: Path) -> None:
    """Training is seeded: two builds are equal to the byte, another seed is not."""
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_index_file(tmp_path / name, FILE, vectors, factory="IVF64x2,PQ12x4fs", seed=seed)
        contents.append((tmp_path / name / FILE).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_damage_is_found_before_faiss_reads_it(vectors: ShardedVectors, tmp_path: Path) -> None:
    """A changed byte in what FAISS interprets, a cut file and a missing one are refused by name."""
    info = built(tmp_path, vectors)
    path = tmp_path / FILE
    whole = path.read_bytes()
    for place in (0, 40, info.header_bytes // 2, info.header_bytes - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Checksum, match="not the IVF64x2,PQ12x4fs index"):
            open_index(tmp_path, info, vectors)
    for length in (0, info.header_bytes, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Checksum, match="not the IVF64x2,PQ12x4fs index"):
            open_index(tmp_path, info, vectors)
    path.unlink()
    with pytest.raises(Checksum, match="cannot be read"):
        open_index(tmp_path, info, vectors)


def test_damaged_codes_and_ids_do_no_harm(
    vectors: ShardedVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random bytes after the header give a clear error, never a crash or a row that does not exist.

    Where sums do not tell, they may give other rows that exist.
    """
    info = built(tmp_path, vectors)
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(7).bytes(len(content) - info.header_bytes)
    content[info.header_bytes :] = noise
    path.write_bytes(content)
    with pytest.raises(Checksum, match=r"list \d+ is not what was written"):
        open_index(tmp_path, info, vectors).search(clustered(5, seed=8), 10)
    monkeypatch.setattr(CheckedLists, "check", lambda *_: None)
    index = open_index(tmp_path, info, vectors)
    with pytest.raises(Checksum, match="rows that do not exist"):
        index.search(clustered(5, seed=8), 10)
    hits: Hits = index.search(clustered(5, seed=8), 10, selection=Selection(np.arange(5000)))
    assert hits.ids.max() < 5000


@pytest.mark.parametrize(
    "factory",
    [
        "",
        "Flat",
        "IVF0,RaBitQ",
        "IVF64",
        "IVF64,PQ8",
        "IVF64,Flat",
        "IVF9999999,SQ8",
        "OPQ8,IVF4,PQ8",
        "IVF٣,SQ8",
        "IVF4,PQ12x4",
        "IVF4x3,SQ8",
    ],
)
def test_other_factories_are_refused(vectors: ShardedVectors, tmp_path: Path, factory: str) -> None:
    """Only kinds whose files are checked before they are read are made."""
    with pytest.raises(ConfigError, match="not known"):
        build_index_file(tmp_path, FILE, vectors, factory=factory)


@pytest.mark.parametrize("pieces", [7, 5, 32])
def test_pieces_that_do_not_suit(vectors: ShardedVectors, tmp_path: Path, pieces: int) -> None:
    """A number of pieces that is odd or does not divide the dimensions is refused with advice."""
    with pytest.raises(ConfigError, match=f"cuts vectors into {pieces} pieces") as caught:
        build_index_file(tmp_path, FILE, vectors, factory=f"IVF64,PQ{pieces}x4fs")
    assert "PQ12x4fs suits 48" in (caught.value.hint or "")


@pytest.mark.parametrize("codes", ["RaBitQ", "PQ12x4fs"])
def test_more_lists_than_rows(tmp_path: Path, codes: str) -> None:
    """A corpus smaller than the lists, or than a codebook, gets a list per row and answers."""
    folder = tmp_path / "few"
    few = ShardedVectors(folder, write_shards(folder, clustered(9), shard_rows=20))
    info = build_index_file(tmp_path, FILE, few, factory=f"IVF64,{codes}")
    assert info.factory == f"IVF9,{codes}"
    assert open_index(tmp_path, info, few).search(few.block(3, 4), 1).ids.tolist() == [[3]]


def test_one_row_has_no_second_list(tmp_path: Path) -> None:
    """Where there is one list, a row stands in that alone, and the record says so."""
    folder = tmp_path / "one"
    one = ShardedVectors(folder, write_shards(folder, clustered(1), shard_rows=20))
    info = build_index_file(tmp_path, FILE, one, factory="IVF64x2,PQ12x4fs")
    assert info.factory == "IVF1,PQ12x4fs"
    assert open_index(tmp_path, info, one).search(one.block(0, 1), 1).ids.tolist() == [[0]]


def test_a_row_stands_in_the_nearest_list_and_a_second_one(vectors: ShardedVectors) -> None:
    """The second list has the least loss of the paper's formula, summed one by one in float64."""
    rows = vectors.block(0, 300)
    centroids = clustered(40, seed=12)
    near = np.argsort(-(rows @ centroids.T), axis=1)[:, :16].astype(np.int64)
    chosen = second_lists(rows, near, centroids)
    for row, numbers, found in zip(rows.astype(np.float64), near, chosen, strict=True):
        first = row - centroids[numbers[0]].astype(np.float64)
        losses = []
        for number in numbers[1:]:
            left = row - centroids[number].astype(np.float64)
            along = (first @ left) / (first @ first) * first
            losses.append(left @ left + 1.5 * along @ along)
        assert found in numbers[1:]
        assert losses[numbers[1:].tolist().index(found)] <= min(losses) + 1e-5
    assert (chosen != near[:, 1]).any()


def test_a_centroid_where_the_row_is(vectors: ShardedVectors) -> None:
    """A row that is its own centroid, twice, has a second list all the same."""
    row = vectors.block(0, 1)
    assert second_lists(row, np.array([[2, 0, 1]]), np.concatenate([row, -row, row])).tolist() == [
        0
    ]


def test_effort_and_nprobe_agree() -> None:
    """Every number of lists has an effort that gives it."""
    for n_lists in (16, 512, 8192):
        for nprobe in (1, 2, 7, 16, n_lists):
            if nprobe <= n_lists:
                assert nprobe_of(effort_of(nprobe, n_lists), n_lists) == nprobe


def test_effort_one_is_exact(vectors: ShardedVectors, tmp_path: Path) -> None:
    """Whatever the codes lost, effort 1 gives the exact rows."""
    info = msgspec.structs.replace(built(tmp_path, vectors), effort=0.0)
    queries = clustered(10, seed=9)
    exact = ExactIndex(vectors).search(queries, 20)
    assert (
        IvfIndex(tmp_path, info, vectors).search(queries, 20, effort=1.0).ids == exact.ids
    ).all()


def test_a_faiss_that_cannot_open_them(
    vectors: ShardedVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS for Windows is built without lists on disk: the remedy is said, in one line."""
    info = build_index_file(tmp_path, FILE, vectors, factory="IVF16,SQ8")
    monkeypatch.delattr("faiss.OnDiskInvertedLists")
    with pytest.raises(ConfigError, match=r"inverted file.*--index-factory SQfp16"):
        open_index(tmp_path, info, vectors)
