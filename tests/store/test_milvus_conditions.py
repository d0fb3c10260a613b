"""Conditions mean on Milvus what they mean in the folder, whoever evaluates them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.core.values import Condition, Prompt
from imprompt.store.conditions import holds_words, matches, where
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.milvus_prompts import Matched, MilvusPrompts
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
leaves = st.one_of(
    words.map(holds_words),
    words.map(lambda word: Condition("text LIKE ?", (f"%{word}%",))),
    words.map(lambda word: Condition("contains(text, ?)", (word,))),
    words.map(lambda word: Condition("lower(text) LIKE lower(?)", (f"{word}%",))),
    st.sampled_from(TEXTS).map(lambda text: Condition("text = ?", (text,))),
    st.sampled_from(["<", "<=", "=", "<>", ">", ">="]).flatmap(
        lambda sign: st.sampled_from([0, 4, 4.5, -1, 30, 81.0]).map(
            lambda n: Condition(f"n_submitted {sign} ?", (n,))
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
    prompts: DuckPrompts, pushed: MilvusPrompts, condition: Condition
) -> None:
    """Any of them, joined and turned around, where parts are the server's and parts are looked at here."""
    assert pushed.matching(condition).tolist() == prompts.matching(condition).tolist()


def test_names_and_groups(prompts: DuckPrompts, pushed: MilvusPrompts) -> None:
    """By key and by group as in the folder; what is no key finds nothing and asks nothing."""
    keys = [f"{i:064}" for i in (7, 2, 99)]
    assert pushed.rows_of(keys).tolist() == prompts.rows_of(keys).tolist() == [2, 7]
    assert pushed.by_key(keys[0]) == prompts.by_key(keys[0])
    assert pushed.by_key('" or row_id >= 0 or "') is None
    assert pushed.group_sizes(range(5)) == prompts.group_sizes(range(5))


def test_an_exact_filter_is_sent_as_its_expression(
    pushed: MilvusPrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search names the condition and no ids; a copy of the ids, and what only narrowed rows down, is not taken for it."""
    exact, narrowed = (
        pushed.matching(where("n_submitted > 3")),
        pushed.matching(where("length(text) > 3")),
    )
    assert pushed._matched.expression(exact) == "n_submitted > 3"
    assert pushed._matched.expression(exact.copy()) is None
    assert pushed._matched.expression(narrowed) is None
    with pytest.raises(ValueError, match="read-only"):
        exact[0] = 5
    del exact
    assert not pushed._matched._expressions


def test_a_search_with_a_filter_asks_for_its_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among 700 rows, 600 of which pass, nothing but the expression goes to the server, and the answer is that of the ids."""
    from imprompt.store.milvus.index import MilvusIndex
    from imprompt.store.milvus.index_types import IndexChoice
    from imprompt.store.milvus.vectors import MilvusVectors
    from tests.contracts import milvus_lite
    from tests.store.builders import random_vectors

    rows = random_vectors(700, 8)
    some = [Prompt(i, f"{i:064x}", f"text {i}", "", "", "", i, i) for i in range(700)]
    choice = IndexChoice("FLAT", {})
    connection, name = milvus_lite._collection(some, rows, choice)
    matched = Matched()
    found = MilvusPrompts(connection, name, rows=700, n_long=0, matched=matched)
    vectors = MilvusVectors(connection, name, milvus_lite.FIELD, rows=700, dim=8)
    index = MilvusIndex(
        connection, name, milvus_lite.FIELD, vectors, choice=choice, effort=1.0, matched=matched
    )
    allowed = found.matching(where("n_submitted >= 100"))
    asked: list[object] = []
    call = Connection.call

    def spy(self: Connection, method: str, /, *arguments: object, **options: object) -> object:
        if method == "search":
            asked.append(options["filter"])
        return call(self, method, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "call", spy)
    by_expression, by_ids = (
        index.search(rows[:3], 5, allowed=allowed),
        index.search(rows[:3], 5, allowed=allowed.copy()),
    )
    assert asked[0] == "n_submitted >= 100"
    assert str(asked[1]).startswith("row_id not in [")
    assert np.array_equal(by_expression.ids, by_ids.ids)
    assert (by_expression.ids >= 100).all()
