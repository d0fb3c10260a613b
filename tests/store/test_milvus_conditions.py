"""Conditions mean on Milvus what they mean in the folder, whoever evaluates them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.core.predicates import Column, Comparison, Contains, Like, Literal, Predicate, Sign
from imprompt.core.values import Prompt, Selection
from imprompt.store.conditions import holds_words, matches, where
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.milvus_prompts import MilvusPrompts
from imprompt.store.prompts import DuckPrompts
from tests.contracts.milvus_lite import close_lite_file, milvus_prompts
from tests.store.test_conditions import MEANINGS, TEXTS, prompts

pytestmark = pytest.mark.slow

__all__ = ["prompts"]


@pytest.fixture(scope="module")
def pushed(prompts: DuckPrompts) -> Iterator[MilvusPrompts]:
    """The prompts of `test_conditions`, on Milvus Lite."""
    found = milvus_prompts(prompts.get_many(range(len(prompts))))
    assert isinstance(found, MilvusPrompts)
    yield found
    close_lite_file()


@pytest.mark.parametrize("expression", MEANINGS)
def test_a_condition_means_the_same(
    prompts: DuckPrompts, pushed: MilvusPrompts, expression: str
) -> None:
    """Every form that a user may type, and its opposite."""
    condition = where(expression)
    assert pushed.matching(condition).tolist() == prompts.matching(condition).tolist()
    assert pushed.matching(~condition).tolist() == prompts.matching(~condition).tolist()


words = st.sampled_from(
    [
        "red",
        "RED fox",
        "fox",
        "ö",
        "Ö",
        "油",
        "%",
        "_",
        "'",
        "8K",
        "\\",
        "red fox",
        "é",
        "e\u0301",
        "x",
        "l_s",
        "b(",
    ]
)
SIGNS: list[Sign] = ["<", "<=", "=", "<>", ">", ">="]
leaves = st.one_of(
    words.map(holds_words),
    words.map(lambda word: Like(Column("text"), f"%{word}%")),
    words.map(lambda word: Contains(Column("text"), Literal(word))),
    words.map(lambda word: Like(Column("text"), f"{word}%", ignore_case=True)),
    st.sampled_from(TEXTS).map(lambda text: Comparison("=", Column("text"), Literal(text))),
    st.sampled_from(SIGNS).flatmap(
        lambda sign: st.sampled_from([0, 4, 4.5, -1, 30, 81.0]).map(
            lambda n: Comparison(sign, Column("n_submitted"), Literal(n))
        )
    ),
    st.just(matches("fox|ö")),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda c: ~c),
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
    ),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(condition=trees)
def test_conditions_that_are_put_together_mean_the_same(
    prompts: DuckPrompts, pushed: MilvusPrompts, condition: Predicate
) -> None:
    """Any of them, joined and inverted, some parts checked by the server, others by DuckDB."""
    assert pushed.matching(condition).tolist() == prompts.matching(condition).tolist()


def test_names_and_groups(prompts: DuckPrompts, pushed: MilvusPrompts) -> None:
    """By key and by group as in the folder; what is no key finds nothing and asks nothing."""
    keys = [f"{i:064}" for i in (7, 2, 99)]
    assert pushed.rows_of(keys).tolist() == prompts.rows_of(keys).tolist() == [2, 7]
    assert pushed.by_key(keys[0]) == prompts.by_key(keys[0])
    assert pushed.by_key('" or row_id >= 0 or "') is None
    assert pushed.group_sizes(range(5)) == prompts.group_sizes(range(5))


def test_a_search_with_a_filter_asks_for_its_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 700 rows, 600 of which pass, only the expression is sent, for the same answer.

    Ids go where there is no predicate, where its expression only narrows rows down, and where some
    rows have texts too long for the server to tell.
    """
    from imprompt.store.milvus.index import MilvusIndex
    from imprompt.store.milvus.index_types import IndexChoice
    from imprompt.store.milvus.vectors import MilvusVectors
    from tests.contracts import milvus_lite
    from tests.store.builders import random_vectors

    rows = random_vectors(700, 8)
    some = [Prompt(i, f"{i:064x}", f"text {i}", "", "", "", i, i) for i in range(700)]
    choice = IndexChoice("FLAT", {})
    connection, name = milvus_lite._collection(some, rows, choice)
    prompts = MilvusPrompts(connection, name, rows=700, n_long=0)
    vectors = MilvusVectors(connection, name, milvus_lite.FIELD, rows=700, dim=8)
    index, index_of_long = (
        MilvusIndex(
            connection, name, milvus_lite.FIELD, vectors, choice=choice, effort=1.0, n_long=n_long
        )
        for n_long in (0, 1)
    )
    exact, narrowed = where("n_submitted >= 100"), where("length(text) > 3 AND n_submitted >= 100")
    row_ids = prompts.matching(exact)
    assert prompts.matching(narrowed).tolist() == row_ids.tolist()
    asked: list[object] = []
    call = Connection.call

    def spy(self: Connection, method: str, /, *arguments: object, **options: object) -> object:
        if method == "search":
            asked.append(options["filter"])
        return call(self, method, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "call", spy)
    by_expression = index.search(rows[:3], 5, selection=Selection(row_ids, exact))
    by_ids = [
        index.search(rows[:3], 5, selection=Selection(row_ids)),
        index.search(rows[:3], 5, selection=Selection(row_ids, narrowed)),
        index_of_long.search(rows[:3], 5, selection=Selection(row_ids, exact)),
    ]
    assert asked[0] == "n_submitted >= 100"
    assert len(asked) == 4
    assert all(str(expression).startswith("row_id not in [") for expression in asked[1:])
    assert all(np.array_equal(by_expression.ids, hits.ids) for hits in by_ids)
    assert (by_expression.ids >= 100).all()
