"""The contract of `imprompt.core.protocols.VectorIndex`, checked against the raw vector files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imprompt.core.errors import QueryError, SpaceMismatch
from imprompt.core.protocols import VectorIndex
from imprompt.core.values import Hits, Selection, Vectors, unit_rows
from imprompt.store.exact_index import ExactIndex
from imprompt.store.gpu import Gpu
from imprompt.store.gpu_index import GpuIndex
from imprompt.store.index_plan import PART_ROWS
from imprompt.store.indexes import build_index_file, open_index
from imprompt.store.shards import ShardedVectors
from tests.contracts.milvus_lite import milvus_index
from tests.store.builders import random_vectors, write_shards
from tests.store.fake_gpu import FakeGpu

Makers: TypeAlias = "dict[str, Callable[[Path, ShardedVectors], VectorIndex]]"

ROWS = 700
DIM = 24


def exact_index(folder: Path, vectors: ShardedVectors) -> VectorIndex:
    return ExactIndex(vectors)


def faiss_index(folder: Path, vectors: ShardedVectors) -> VectorIndex:
    return open_index(folder, build_index_file(folder, "index/toy.faiss", vectors), vectors)


def in_memory(folder: Path, vectors: ShardedVectors) -> VectorIndex:
    return open_index(
        folder, build_index_file(folder, "index/toy.faiss", vectors), vectors, mapped=False
    )


def inverted_file(
    factory: str, *, mapped: bool = True, part_rows: int = PART_ROWS
) -> Callable[[Path, ShardedVectors], VectorIndex]:
    def make(folder: Path, vectors: ShardedVectors) -> VectorIndex:
        info = build_index_file(
            folder, "index/toy.faiss", vectors, factory=factory, part_rows=part_rows
        )
        return open_index(folder, msgspec.structs.replace(info, effort=0.5), vectors, mapped=mapped)

    return make


def on_a_gpu(folder: Path, vectors: ShardedVectors) -> VectorIndex:
    """In pieces of 200 rows, before an inverted file."""
    return GpuIndex(
        inverted_file("IVF16,RaBitQ")(folder, vectors),
        vectors,
        Gpu(FakeGpu().connect, required=True),
        piece_rows=200,
    )


def on_milvus(kind: str) -> Callable[[Path, ShardedVectors], VectorIndex]:
    def make(folder: Path, vectors: ShardedVectors) -> VectorIndex:
        return milvus_index(vectors, kind, effort=0.5)

    return make


MAKERS = {
    "exact": exact_index,
    "faiss": faiss_index,
    "faiss-in-memory": in_memory,
    "rabitq-in-memory": inverted_file("IVF16,RaBitQ", mapped=False),
    "rabitq": inverted_file("IVF16,RaBitQ"),
    "quantised": inverted_file("IVF16,SQ8"),
    "fast-scan": inverted_file("IVF16,PQ6x4fs"),
    "fast-scan-in-memory": inverted_file("IVF16,PQ6x4fs", mapped=False),
    "in-two-lists": inverted_file("IVF16x2,PQ6x4fs"),
    "rabitq-in-two-lists": inverted_file("IVF16x2,RaBitQ", mapped=False),
    "parts": inverted_file("IVF16,PQ6x4fs", part_rows=130),
    "parts-in-two-lists": inverted_file("IVF16x2,PQ6x4fs", part_rows=130),
    "gpu": on_a_gpu,
}
MILVUS = {kind: on_milvus(kind) for kind in ("FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8")}
EVERY = [
    *(pytest.param(maker, id=name) for name, maker in MAKERS.items()),
    *(
        pytest.param(maker, id=f"milvus-{kind}", marks=pytest.mark.slow)
        for kind, maker in MILVUS.items()
    ),
]


@dataclass(frozen=True, slots=True)
class Case:
    """An index, and the unit rows that it was made from as this test reads them from disk."""

    index: VectorIndex
    rows: Vectors


def make_case(
    maker: Callable[[Path, ShardedVectors], VectorIndex], folder: Path, vectors: Vectors
) -> Case:
    shards = write_shards(folder, vectors, shard_rows=150)
    stored = np.concatenate([np.load(folder / shard.file) for shard in shards]).astype(np.float32)
    lengths = np.linalg.norm(stored.astype(np.float64), axis=1, keepdims=True).astype(np.float32)
    return Case(maker(folder, ShardedVectors(folder, shards)), stored / lengths)


@pytest.fixture(scope="module", params=EVERY)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """700 rows with every kind of tie: rows 100 to 399 are equal, 400 to 449 repeat 0 to 49."""
    vectors = random_vectors(ROWS, DIM)
    vectors[100:400] = vectors[100]
    vectors[400:450] = vectors[:50]
    return make_case(request.param, tmp_path_factory.mktemp("index"), vectors)


def questions(n: int = 64, *, seed: int = 1) -> Vectors:
    return random_vectors(n, DIM, seed=seed)


def expected_ids(rows: Vectors, query: NDArray[np.float32], k: int) -> list[int]:
    """The k nearest by sorting all (falling cosine, rising id) in plain Python."""
    scores = (rows.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return [i for _, i in sorted((-float(score), i) for i, score in enumerate(scores))][:k]


def same(left: Hits, right: Hits) -> bool:
    """Equal to the bit."""
    return (
        left.ids.tobytes() == right.ids.tobytes()
        and left.scores.tobytes() == right.scores.tobytes()
    )


def test_shape_and_types(case: Case) -> None:
    """Hits are (q, k) int64 and float32, and the index knows its size."""
    hits = case.index.search(questions(3), 5)
    assert hits.ids.shape == hits.scores.shape == (3, 5)
    assert hits.ids.dtype.str == "<i8"
    assert hits.scores.dtype.str == "<f4"
    assert (len(case.index), case.index.dim) == (ROWS, DIM)


@pytest.mark.parametrize("k", [1, 10, 120, ROWS])
def test_the_exact_rows_in_order(case: Case, k: int) -> None:
    """With effort 1 the k nearest by falling cosine, ties by rising id, also where 300 rows tie."""
    queries = np.concatenate([questions(20), case.rows[[100, 7, 420]]])
    hits = case.index.search(queries, k, effort=1.0)
    assert hits.ids.tolist() == [expected_ids(case.rows, query, k) for query in queries]


def test_scores_are_cosines(case: Case) -> None:
    """A score is the cosine of query and row, to float32 rounding; a stored row finds itself."""
    queries = questions(8)
    hits = case.index.search(queries, 20)
    truth = np.take_along_axis(
        queries.astype(np.float64) @ case.rows.T.astype(np.float64), hits.ids, axis=1
    )
    np.testing.assert_allclose(hits.scores, truth, atol=2e-7)
    own = case.index.search(case.rows[[5]], 1, effort=1.0)
    assert own.ids[0, 0] == 5
    assert own.scores[0, 0] == pytest.approx(1, abs=2e-7)


def test_no_queries(case: Case) -> None:
    """No question has no answer, in the right shape."""
    hits = case.index.search(np.empty((0, DIM), dtype=np.float32), 7)
    assert hits.ids.shape == hits.scores.shape == (0, 7)


def test_padding(case: Case) -> None:
    """If fewer than k rows exist, the rest is (-1, -inf)."""
    hits = case.index.search(questions(2), ROWS + 9)
    assert (hits.ids[:, ROWS:] == -1).all()
    assert np.isneginf(hits.scores[:, ROWS:]).all()
    assert sorted(hits.ids[0, :ROWS].tolist()) == list(range(ROWS))


@pytest.mark.parametrize("k", [1, 5, 64])
def test_a_smaller_k_is_a_prefix(case: Case, k: int) -> None:
    """The first k of the largest k that is steady are the answer for k."""
    queries = np.concatenate([questions(30), case.rows[[100]]])
    wide = case.index.search(queries, case.index.caps.steady_k)
    narrow = case.index.search(queries, k)
    assert same(
        Hits(np.ascontiguousarray(wide.ids[:, :k]), np.ascontiguousarray(wide.scores[:, :k])),
        narrow,
    )


@pytest.mark.parametrize("size", [1, 7])
def test_batches_change_nothing(case: Case, size: int) -> None:
    """64 queries one by one, in sevens or at once: the same ids and the same bits of the scores."""
    queries = questions(64)
    parts = [case.index.search(queries[start : start + size], 12) for start in range(0, 64, size)]
    joined = Hits(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
    assert same(joined, case.index.search(queries, 12))


def test_strided_queries(case: Case) -> None:
    """Queries that are a view with gaps are answered like their copy."""
    queries = questions(10)
    assert same(case.index.search(queries[::2], 5), case.index.search(queries[::2].copy(), 5))
    assert same(case.index.search(np.asfortranarray(queries), 5), case.index.search(queries, 5))


def test_threads_change_nothing(case: Case) -> None:
    """Eight threads with and without filters, all at once, get what one gets."""
    queries = questions(48)
    filters = [None, *map(Selection, (np.arange(0, ROWS, 3), np.arange(600), np.arange(50)))]

    def ask(i: int) -> Hits:
        return case.index.search(queries[i : i + 1], 9, selection=filters[i % 4])

    alone = [ask(i) for i in range(48)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(48)))
    assert all(same(left, right) for left, right in zip(alone, together, strict=True))


def test_threads_of_different_efforts(case: Case) -> None:
    """Each query keeps its effort: in a batch with others it gets the hits that it gets alone."""
    queries = questions(400)

    def ask(i: int) -> Hits:
        return case.index.search(queries[i : i + 1], 9, effort=(0.05, 0.5, 0.95)[i % 3])

    alone = [ask(i) for i in range(400)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(400)))
    assert all(same(left, right) for left, right in zip(alone, together, strict=True))


def test_allowed(case: Case) -> None:
    """Only allowed rows are answered, in any order of asking, as if the others did not exist."""
    allowed = np.random.default_rng(3).permutation(ROWS)[:90]
    hits = case.index.search(
        questions(5), 100, selection=Selection(np.concatenate([allowed, allowed[:4]]))
    )
    for query, ids in zip(questions(5), hits.ids, strict=True):
        assert ids[:90].tolist() == [
            i for i in expected_ids(case.rows, query, ROWS) if i in set(allowed)
        ]
    assert (hits.ids[:, 90:] == -1).all()


@pytest.mark.parametrize("n_allowed", [1, 7, 60, ROWS - 1])
@pytest.mark.parametrize("k", [5, 64, ROWS])
def test_k_rows_come_where_k_rows_are_allowed(case: Case, n_allowed: int, k: int) -> None:
    """Allowed rows are found even if few and far: those that an unfiltered search gives last."""
    queries = questions(6)
    for query in queries:
        allowed = np.array(expected_ids(case.rows, query, ROWS)[-n_allowed:])
        hits = case.index.search(query[None], k, selection=Selection(allowed))
        assert (hits.ids[0] >= 0).sum() == min(k, n_allowed)
        assert set(hits.ids[0][hits.ids[0] >= 0].tolist()) <= set(allowed.tolist())


def test_nothing_allowed(case: Case) -> None:
    """An empty set of allowed rows gives padding only."""
    hits = case.index.search(questions(2), 3, selection=Selection(np.empty(0, dtype=np.int64)))
    assert (hits.ids == -1).all()
    assert np.isneginf(hits.scores).all()


@pytest.mark.parametrize("allowed", [[-1], [ROWS], [0.5]])
def test_allowed_out_of_range(case: Case, allowed: list[float]) -> None:
    """A row id that the index does not have is refused."""
    with pytest.raises(QueryError, match="Selected"):
        case.index.search(questions(1), 3, selection=Selection(np.array(allowed)))


@pytest.mark.parametrize("n", [0, 2])
def test_wrong_dimension(case: Case, n: int) -> None:
    """Vectors of another dimension belong to another space, even when there are none."""
    with pytest.raises(SpaceMismatch, match=r"25 dimensions.*24"):
        case.index.search(np.zeros((n, DIM + 1), dtype=np.float32), 3)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(questions(2).astype(np.float64), id="float64"),
        pytest.param(questions(2).astype(np.float16), id="float16"),
        pytest.param(questions(2)[0], id="one-dimensional"),
        pytest.param(questions(2).tolist(), id="list"),
        pytest.param(np.full((1, DIM), np.nan, dtype=np.float32), id="nan"),
        pytest.param(np.full((1, DIM), np.inf, dtype=np.float32), id="infinite"),
        pytest.param(np.zeros((1, DIM), dtype=np.float32), id="zeros"),
        pytest.param(questions(2) * np.float32(1.1), id="not-unit"),
    ],
)
def test_queries_that_are_no_unit_rows(case: Case, bad: Vectors) -> None:
    """Anything but finite float32 rows of length 1 is refused."""
    with pytest.raises(QueryError):
        case.index.search(bad, 3)


@pytest.mark.parametrize("k", [0, -1, 10**6, 2.0, True])
def test_k_out_of_range(case: Case, k: int) -> None:
    """k is a whole number from 1 to the largest that the index can."""
    with pytest.raises(QueryError, match="k is"):
        case.index.search(questions(1), k)


@pytest.mark.parametrize("effort", [-0.1, 1.1, float("nan")])
def test_effort_out_of_range(case: Case, effort: float) -> None:
    """Effort is from 0 to 1."""
    with pytest.raises(QueryError, match="effort"):
        case.index.search(questions(1), 3, effort=effort)


@pytest.mark.parametrize("effort", [0.0, 1.0])
def test_effort_in_range(case: Case, effort: float) -> None:
    """Both ends of the range are answered; 1 is exact."""
    hits = case.index.search(questions(1), 3, effort=effort)
    assert effort < 1 or hits.ids[0].tolist() == expected_ids(case.rows, questions(1)[0], 3)


def test_largest_k(case: Case) -> None:
    """The k that `caps` promises is answered."""
    assert case.index.search(questions(1), case.index.caps.max_k).ids.shape == (
        1,
        case.index.caps.max_k,
    )


def test_queries_are_left_alone(case: Case) -> None:
    """A search does not write into its arguments."""
    queries, allowed = questions(4), np.arange(30)
    before = queries.copy()
    queries.flags.writeable = allowed.flags.writeable = False
    case.index.search(queries, 3, selection=Selection(allowed))
    assert (queries == before).all()


@pytest.mark.parametrize("maker", EVERY)
def test_one_row(maker: Callable[[Path, ShardedVectors], VectorIndex], tmp_path: Path) -> None:
    """An index of one row answers it, and padding."""
    case = make_case(maker, tmp_path, random_vectors(1, DIM))
    assert case.index.search(questions(1), 3).ids.tolist() == [[0, -1, -1]]


@pytest.mark.parametrize("maker", EVERY)
def test_more_near_ties_than_candidates(
    maker: Callable[[Path, ShardedVectors], VectorIndex], tmp_path: Path
) -> None:
    """The nearest of 3,000 rows stays so though float16 changes lengths more than angles."""
    rng = np.random.default_rng(5)
    case = make_case(
        maker, tmp_path, unit_rows(random_vectors(1, DIM) + 1e-3 * rng.standard_normal((3000, DIM)))
    )
    queries = case.rows[:40]
    hits = case.index.search(queries, 3, effort=1.0)
    assert hits.ids.tolist() == [expected_ids(case.rows, query, 3) for query in queries]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_near_ties(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows closer than FAISS's scan can tell apart still come in the exact order."""
    check_near_ties(data, tmp_path_factory, MAKERS)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_near_ties_on_milvus(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same where a server scans and the rows come over the network."""
    check_near_ties(data, tmp_path_factory, MILVUS)


def check_near_ties(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, makers: Makers
) -> None:
    rows = data.draw(st.integers(2, 400), label="rows")
    spread = data.draw(st.sampled_from([1e-4, 1e-3, 1e-2]), label="spread")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    k = data.draw(st.integers(1, rows), label="k")
    vectors = unit_rows(
        random_vectors(1, DIM, seed=rows) + spread * rng.standard_normal((rows, DIM))
    )
    for name, maker in makers.items():
        case = make_case(maker, tmp_path_factory.mktemp(name), vectors)
        hits = case.index.search(vectors[:2], k, effort=1.0)
        assert hits.ids.tolist() == [expected_ids(case.rows, query, k) for query in vectors[:2]]
