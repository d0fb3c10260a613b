"""The contract of `imprompt.core.protocols.PromptStore`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from imprompt.core.errors import UnknownRow
from imprompt.core.predicates import Column, Comparison, Literal
from imprompt.core.protocols import PromptStore
from imprompt.core.values import Parameters, Prompt, prompt_key
from imprompt.store.layout import PROMPTS
from imprompt.store.prompts import DuckPrompts
from imprompt.store.staged_prompts import CleanPrompt, CorpusState, StagedPrompts
from tests.contracts.milvus_lite import milvus_prompts

TEXTS = [
    "a cat",
    "Öl auf Leinwand, 油画, 🎨",
    "a \0 inside",
    'it\'s "quoted"; DROP TABLE prompts; --',
    "back\\slash, tab\tand\nline",
    "e\u0301 and é",
    "long " * 200_000,
    "",
    "-1",
    "NULL",
]
PARAMETERS = {
    1: Parameters('blurry, "low" quality; \'--', {"sampler": "Euler a", "model": "夢 v1"}),
    4: Parameters("", {"steps": "30"}),
    6: Parameters("🎨" * 10_000, {}),
}
"""Of three of them; the last is as long as one gets."""


def duckdb_store(folder: Path) -> DuckPrompts:
    with StagedPrompts(folder) as staged:
        rows = [
            CleanPrompt(
                *(prompt_key(f"{i}"), text, text.upper(), f"source {i}", f"{i}'", i + 1),
                parameters=PARAMETERS.get(i),
            )
            for i, text in enumerate(TEXTS)
        ]
        staged.add(rows, corpus=0, state=CorpusState(len(TEXTS), finished=True))
        staged.number()
    return DuckPrompts(folder / PROMPTS)


@contextmanager
def on_milvus(folder: Path) -> Iterator[PromptStore]:
    with duckdb_store(folder) as opened:
        everything = range(len(opened))
        yield milvus_prompts(opened.get_many(everything), opened.parameters(everything))


MAKERS: dict[str, Callable[[Path], AbstractContextManager[PromptStore]]] = {
    "duckdb": duckdb_store,
    "milvus": on_milvus,
}


@pytest.fixture(scope="module", params=["duckdb", pytest.param("milvus", marks=pytest.mark.slow)])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PromptStore]:
    with MAKERS[request.param](tmp_path_factory.mktemp("prompts")) as opened:
        yield opened


def test_every_field_comes_back(store: PromptStore) -> None:
    """All columns round-trip: other scripts, NUL, quotes, line feeds, a megabyte, empty texts."""
    assert len(store) == len(TEXTS)
    assert store.get_many(range(len(TEXTS))) == [
        Prompt(i, prompt_key(f"{i}"), text, text.upper(), f"source {i}", f"{i}'", i + 1, i)
        for i, text in enumerate(TEXTS)
    ]


def test_parameters_come_back_for_those_rows_that_have_any(store: PromptStore) -> None:
    """Other scripts, quotes, no negative prompt, no settings; settings in their order."""
    found = store.parameters(range(len(TEXTS)))
    assert found == PARAMETERS
    assert [*found[1].settings] == ["sampler", "model"]
    assert store.parameters(np.array([4, 0, 4], dtype=np.int64)) == {4: PARAMETERS[4]}
    assert store.parameters([]) == store.parameters([0]) == {}


def test_request_order_with_repeats(store: PromptStore) -> None:
    """Prompts come in the order asked for, as often as asked for."""
    assert [prompt.row_id for prompt in store.get_many([3, 0, 3, 9, 0])] == [3, 0, 3, 9, 0]


def test_ids_of_a_search(store: PromptStore) -> None:
    """An int64 array like `Hits.ids` works like a list; row ids come back as plain integers."""
    found = store.get_many(np.array([2, 1], dtype=np.int64))
    assert [type(prompt.row_id) for prompt in found] == [int, int]
    assert found == store.get_many([2, 1])


def test_nothing_asked(store: PromptStore) -> None:
    """No ids, no prompts."""
    assert store.get_many([]) == []


@pytest.mark.parametrize("row_id", [-1, len(TEXTS), 2**40])
def test_unknown_row(store: PromptStore, row_id: int) -> None:
    """An id outside of the version is named, also the -1 that pads hits."""
    with pytest.raises(UnknownRow, match=str(row_id)):
        store.get_many([0, row_id])


def test_conditions_name_rows(store: PromptStore) -> None:
    """The rows of which a condition is true, rising; values are never read as SQL."""
    n, text, one = Column("n_submitted"), Column("text"), Column("n_duplicates")
    some = Comparison(">", n, Literal(3)) & Comparison("<=", n, Literal(5))
    assert store.matching(some).tolist() == [3, 4]
    assert store.matching(Comparison("=", text, Literal(TEXTS[3]))).tolist() == [3]
    without = ~Comparison("=", one, Literal(0))
    assert store.matching(without).dtype == np.int64
    assert store.matching(without).tolist() == []


def test_a_group_of_its_own_stands_for_one(store: PromptStore) -> None:
    """Nothing was folded here; groups that are not there are not answered."""
    assert store.group_sizes([2, 0, 2]) == {0: 1, 2: 1}
    assert store.group_sizes([]) == store.group_sizes([99]) == {}


def test_threads(store: PromptStore) -> None:
    """Many threads at once get what one gets."""
    wanted = [[i % 10, (i * 7) % 10] for i in range(80)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(store.get_many, wanted))
    assert found == [store.get_many(ids) for ids in wanted]
