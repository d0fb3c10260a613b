"""Filters and folding: the answer is that of a look at every row, and k come where k exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.core.errors import FilterRejected, QueryError
from imprompt.core.predicates import Predicate
from imprompt.core.protocols import VectorIndex
from imprompt.core.values import Hits, Ids, IndexCaps, Prompt, Selection, Vectors
from imprompt.retriever import Answer, Filters, Question, Retriever
from imprompt.retriever import filters as filters_module
from imprompt.retriever.artists import Artists
from imprompt.retriever.collapsing import nearest_groups
from imprompt.retriever.filters import PassingPrompts, select
from imprompt.store import layout
from imprompt.store.exact_index import ExactIndex
from imprompt.store.faiss_index import FaissIndex, build_faiss_index
from imprompt.store.index_version import IndexVersion
from imprompt.store.indexes import build_index_file, open_index
from imprompt.store.prompts import DuckPrompts
from imprompt.store.shards import ShardedVectors
from tests.retriever.colours import PROMPTS, ColourPair
from tests.store.builders import random_vectors, write_shards

ROWS = 400
DIM = 12


@dataclass(frozen=True, slots=True)
class SmallSteps:
    """An index that gives at most seven hits at once, so that looking deeper ends early."""

    index: VectorIndex

    @property
    def caps(self) -> IndexCaps:
        return IndexCaps(max_k=7, steady_k=7)

    @property
    def dim(self) -> int:
        return self.index.dim

    def __len__(self) -> int:
        return len(self.index)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        effort: float | None = None,
        selection: Selection | None = None,
    ) -> Hits:
        assert k <= 7
        return self.index.search(queries, k, effort=effort, selection=selection)


@dataclass(frozen=True, slots=True)
class World:
    """Rows of words, half of them in groups of up to 120, and four indexes of their vectors."""

    prompts: DuckPrompts
    rows: list[Prompt]
    vectors: Vectors
    indexes: dict[str, VectorIndex]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(7)
    groups = [i if i < ROWS // 2 else int(g) for i, g in enumerate(rng.choice([0, 1, 2, 50], ROWS))]
    colours = ("red", "green", "blue")
    rows = [
        Prompt(
            i,
            f"{i:064}",
            f"a {colours[i % 3]} Thing {i % 40}",
            f"a {colours[i % 3]} thing {i % 40}",
            f"s{i % 5}",
            str(i),
            i,
            g,
            i % 4,
        )
        for i, g in enumerate(groups)
    ]
    with duckdb.connect(str(folder / layout.PROMPTS)) as connection:
        connection.execute(
            "CREATE TABLE prompts(row_id BIGINT, prompt_key VARCHAR, text VARCHAR, "
            "embedded_text VARCHAR, source VARCHAR, source_key VARCHAR, "
            "n_submitted BIGINT, group_id BIGINT, n_duplicates BIGINT)"
        )
        connection.executemany(
            "INSERT INTO prompts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    p.row_id,
                    p.prompt_key,
                    p.text,
                    p.embedded_text,
                    p.source,
                    p.source_key,
                    p.n_submitted,
                    p.group_id,
                    p.n_duplicates,
                )
                for p in rows
            ],
        )
    # Rows of a group lie close together, so that many of the nearest hits are of one group.
    vectors = random_vectors(ROWS, DIM) * 0.3 + random_vectors(ROWS, DIM, seed=1)[groups]
    stored = ShardedVectors(
        folder, write_shards(folder, vectors.astype(np.float32), shard_rows=150)
    )
    faiss = FaissIndex(folder, build_faiss_index(folder, "index/x.faiss", stored), stored)
    exact = ExactIndex(stored)
    ivf = open_index(
        folder, build_index_file(folder, "index/y.faiss", stored, factory="IVF40,RaBitQ"), stored
    )
    with DuckPrompts(folder / layout.PROMPTS) as prompts:
        indexes: dict[str, VectorIndex] = {
            "exact": exact,
            "faiss": faiss,
            "steps": SmallSteps(exact),
            "ivf": ivf,
        }
        yield World(prompts, rows, stored.block(0, ROWS), indexes)


def brute_force(world: World, query: Vectors, k: int, passes: set[int]) -> list[int]:
    """Row ids of the k best groups by a look at every row, in plain Python."""
    scores = (world.vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    found: dict[int, int] = {}
    for _, row_id in sorted((-float(score), i) for i, score in enumerate(scores) if i in passes):
        found.setdefault(world.rows[row_id].group_id, row_id)
    return list(found.values())[:k]


FILTERS: list[tuple[Filters, Callable[[Prompt], bool]]] = [
    (Filters(), lambda p: True),
    (Filters(where="n_submitted > 350"), lambda p: p.n_submitted > 350),
    (Filters(where="row_id = 399 OR source = 's9'"), lambda p: p.row_id == 399),
    (Filters(contains=("RED",)), lambda p: "red" in p.text),
    (
        Filters(contains=("red", "thing 2")),
        lambda p: "red" in p.text and "thing 2" in p.embedded_text,
    ),
    (Filters(exclude=("red", "green")), lambda p: "blue" in p.text),
    (
        Filters(where="n_duplicates = 3", contains=("blue",), exclude=("thing 1",)),
        lambda p: p.n_duplicates == 3 and "blue" in p.text and "thing 1" not in p.embedded_text,
    ),
    (Filters(where="false"), lambda p: False),
]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.sampled_from(FILTERS),
    st.integers(1, 7),
    st.sampled_from(["exact", "faiss", "steps"]),
    st.booleans(),
    st.integers(0, 999),
)
def test_the_answer_is_that_of_a_look_at_every_row(
    world: World,
    filtered: tuple[Filters, Callable[[Prompt], bool]],
    k: int,
    name: str,
    artists: bool,
    seed: int,
) -> None:
    """Filters, words found only by reading, and collapsing give the rows of a full scan."""
    filters, passes = filtered
    selection = select(filters, world.prompts)
    if artists:
        selection = PassingPrompts(
            selection.rows, lambda text: not text.endswith(("1", "3", "5", "7", "9"))
        )
    wanted = {p.row_id for p in world.rows if passes(p) and selection.accepts(p.text)}
    queries = random_vectors(3, DIM, seed=seed)
    found = nearest_groups(
        queries, k, index=world.indexes[name], prompts=world.prompts, selection=selection
    )
    for query, picked in zip(queries, found, strict=True):
        assert [prompt.row_id for prompt, _ in picked] == brute_force(world, query, k, wanted)
        assert [score for _, score in picked] == sorted(
            (score for _, score in picked), reverse=True
        )


@pytest.mark.parametrize("name", ["exact", "faiss"])
def test_all_groups_come_where_all_are_asked_for(world: World, name: str) -> None:
    """k beyond the number of groups gives each group once, however deep its nearest member lies."""
    found = nearest_groups(
        random_vectors(2, DIM, seed=5),
        2048,
        index=world.indexes[name],
        prompts=world.prompts,
        selection=PassingPrompts(),
    )
    for picked in found:
        assert sorted(prompt.group_id for prompt, _ in picked) == sorted(
            {p.group_id for p in world.rows}
        )


@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_a_smaller_k_is_a_prefix(world: World, k: int) -> None:
    """The first k of k = 190 are the answer for k, folded or not."""
    queries = random_vectors(4, DIM, seed=3)
    wide, narrow = (
        nearest_groups(
            queries,
            n,
            index=world.indexes["faiss"],
            prompts=world.prompts,
            selection=PassingPrompts(),
        )
        for n in (190, k)
    )
    assert [picked[:k] for picked in wide] == narrow


@pytest.mark.parametrize(("filters", "passes"), FILTERS)
def test_as_many_come_from_an_index_that_guesses(
    world: World, filters: Filters, passes: Callable[[Prompt], bool]
) -> None:
    """An inverted file with the least effort.

    K groups where k exist, each once, all of them passing, and prefixes agree.
    """
    queries = random_vectors(4, DIM, seed=9)
    groups = {p.group_id for p in world.rows if passes(p)}
    selection = select(filters, world.prompts)
    found = {
        k: nearest_groups(
            queries,
            k,
            index=world.indexes["ivf"],
            prompts=world.prompts,
            selection=selection,
            effort=0.0,
        )
        for k in (1, 5, 50, 130, 190, 500)
    }
    for k, answers in found.items():
        for picked in answers:
            assert all(passes(prompt) for prompt, _ in picked)
            assert (
                len({prompt.group_id for prompt, _ in picked}) == len(picked) == min(k, len(groups))
            )
        assert [picked[:k] for picked in found[50 if k <= 50 else 500]] == answers
        scores = [[score for _, score in picked] for picked in answers]
        assert k <= 128 or scores == [sorted(some, reverse=True) for some in scores]


def test_a_group_says_what_it_stands_for(world: World) -> None:
    """Its members here and the prompts that were folded into any of them."""
    for group in {p.group_id for p in world.rows}:
        members = [p for p in world.rows if p.group_id == group]
        assert world.prompts.group_sizes([group, group]) == {
            group: len(members) + sum(p.n_duplicates for p in members)
        }


def answer(version: IndexVersion, *, filters: Filters, k: int = 8, text: str = "red") -> Answer:
    (found,) = Retriever(version, ColourPair()).ask([Question(text=text)], k, filters=filters)
    assert isinstance(found, Answer), found
    return found


def test_an_answer_names_its_filter(version: IndexVersion) -> None:
    """In JSON, where there is one; the prompts are those that pass."""
    filters = Filters(where="source_key <> '1'", contains=("Red",), exclude=("blue",))
    found = answer(version, filters=filters)
    assert [hit.prompt for hit in found.neighbours] == ["red red green", "red and green"]
    assert found.to_json()["filters"] == {
        "where": "source_key <> '1'",
        "contains": ("Red",),
        "exclude": ("blue",),
    }
    assert str(found.filters) == "where source_key <> '1', contains 'Red', without 'blue'"
    assert "filters" not in answer(version, filters=Filters()).to_json()
    assert [hit.n_like for hit in found.neighbours] == [0, 0]


def test_a_filter_that_nothing_passes_is_said_in_a_line(version: IndexVersion) -> None:
    """It is the question's error, and names the filter."""
    (found,) = Retriever(version, ColourPair()).ask(
        [Question(text="red")], 3, filters=Filters(contains=("purple",))
    )
    assert isinstance(found, QueryError)
    assert "contains 'purple'" in found.message


def test_prompts_that_name_artists_are_left_out(
    version: IndexVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the names of the list; as many others come as there are."""
    monkeypatch.setattr(filters_module, "load_artists", lambda: Artists(["Red Green", "And Blue"]))
    found = answer(version, filters=Filters(no_artists=True))
    named = {"red green blue", "red red green", "green and blue"}
    assert sorted(hit.prompt for hit in found.neighbours) == sorted(set(PROMPTS) - named)


def test_a_filter_is_looked_up_once(version: IndexVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second question with the same filter does not go through the prompts again.

    At most eight are kept.
    """
    asked: list[Predicate] = []
    matching = DuckPrompts.matching

    def noting(store: DuckPrompts, predicate: Predicate) -> Ids:
        asked.append(predicate)
        return matching(store, predicate)

    monkeypatch.setattr(DuckPrompts, "matching", noting)
    retriever = Retriever(version, ColourPair())
    for _ in range(3):
        list(retriever.ask([Question(text="red")] * 40, 3, filters=Filters(contains=("red",))))
    assert len(asked) == 1
    for i in range(9):
        list(retriever.ask([Question(text="red")], 3, filters=Filters(where=f"row_id >= {i - 5}")))
    list(retriever.ask([Question(text="red")], 3, filters=Filters(contains=("red",))))
    assert len(asked) == 11


@pytest.mark.parametrize(
    "wrong",
    [
        {"where": "prompt = 'a'"},
        {"where": ""},
        {"contains": ("",)},
        {"exclude": ("a",) * 21},
        {"contains": ("x" * 501,)},
    ],
)
def test_a_filter_that_cannot_be_used_is_refused_when_it_is_made(wrong: dict[str, object]) -> None:
    """Before anything is loaded; an empty condition is not "no condition"."""
    with pytest.raises(FilterRejected):
        Filters(**wrong)  # type: ignore[arg-type]


def test_filters_say_which_phrases_may_be_said(
    version: IndexVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None that holds an excluded word, however it is written, and none that names an artist."""
    monkeypatch.setattr(filters_module, "load_artists", lambda: Artists(["Red Green"]))
    filters = Filters(exclude=("Warm  LIGHT", "e\u0301t"), no_artists=True)
    passing = select(filters, version.prompts)
    said = {
        "warm light": False,
        "a warm lighthouse": False,
        "an \u00c9tude": False,
        "light": True,
        "by red green": False,
        "red": True,
    }
    assert {phrase: passing.says(phrase) for phrase in said} == said
    assert not passing.accepts("by red green")
    assert not passing.accepts_all


def test_no_filter_lets_everything_pass(version: IndexVersion) -> None:
    """One that reads rows alone accepts every text of theirs."""
    everything = select(Filters(), version.prompts)
    some = select(Filters(contains=("red",)), version.prompts)
    assert everything.all_pass
    assert everything.says("anything")
    assert some.accepts_all
    assert not some.all_pass
