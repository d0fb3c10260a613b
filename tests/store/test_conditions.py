"""What a user types as a condition compares columns and can do nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imprompt.core.errors import FilterRejected
from imprompt.core.predicates import Predicate, Truth
from imprompt.core.values import Prompt
from imprompt.store.conditions import COLUMN_KINDS, holds_words, where
from imprompt.store.layout import PROMPTS
from imprompt.store.predicate_sql import compile_sql
from imprompt.store.prompts import COLUMNS, DuckPrompts
from imprompt.store.staged_prompts import CleanPrompt, CorpusState, StagedPrompts

TEXTS = [
    "a red fox",
    "A Red FOX, 8k",
    "ölbild, 油画",
    "100% wool_sock",
    "it's",
    "",
    "back\\slash (a+b)",
    "fox " * 40,
    "red\nfox",
    "e\u0301",
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckPrompts]:
    folder = tmp_path_factory.mktemp("prompts")
    with StagedPrompts(folder) as staged:
        rows = [
            CleanPrompt(
                f"{i:064}",
                text,
                " ".join(text.split()).replace("e\u0301", "é"),
                f"file {i % 3}",
                f"{i}",
                i * i,
            )
            for i, text in enumerate(TEXTS)
        ]
        staged.add(rows, corpus=0, state=CorpusState(len(TEXTS), finished=True))
        staged.number()
    with DuckPrompts(folder / PROMPTS) as opened:
        yield opened


def test_a_condition_may_name_every_column(prompts: DuckPrompts) -> None:
    """The columns of a condition are those of the store, each of its kind."""
    assert list(COLUMN_KINDS) == list(COLUMNS)
    for name, kind in COLUMN_KINDS.items():
        assert len(prompts.matching(where(f"{name} = {name}"))) == len(TEXTS), kind
        assert len(prompts.matching(where(f"{name} IS NULL"))) == 0


MEANINGS: dict[str, Callable[[Prompt], bool]] = {
    "n_submitted > 9": lambda p: p.n_submitted > 9,
    "n_submitted >= 9 AND n_submitted <= 25": lambda p: 9 <= p.n_submitted <= 25,
    "n_submitted BETWEEN 9 AND 25": lambda p: 9 <= p.n_submitted <= 25,
    "n_submitted NOT BETWEEN 9 AND 25": lambda p: not 9 <= p.n_submitted <= 25,
    "n_submitted < 0.5": lambda p: p.n_submitted < 0.5,
    "n_submitted != -1.5e3": lambda p: True,
    "NOT (row_id = 1 OR row_id = 2) AND row_id < 4": lambda p: p.row_id in (0, 3),
    "row_id = 1 OR row_id = 2 AND text = ''": lambda p: p.row_id == 1,
    "row_id IN (0, 3, 99)": lambda p: p.row_id in (0, 3),
    "source NOT IN ('file 0', 'file 1')": lambda p: p.source == "file 2",
    "text LIKE 'a%'": lambda p: p.text.startswith("a"),
    "text NOT LIKE 'a%'": lambda p: not p.text.startswith("a"),
    "text ILIKE '%RED%fox%'": lambda p: "red" in p.text.lower() and "fox" in p.text.lower(),
    "text LIKE '%l_s%'": lambda p: any(
        p.text[i] == "l" and p.text[i + 2] == "s" for i in range(len(p.text) - 2)
    ),
    "text ILIKE '_T''S'": lambda p: p.text == "it's",
    "text LIKE '%d_fox'": lambda p: p.text in ("a red fox", "red\nfox"),
    "text LIKE 'back\\slash_(a+b)'": lambda p: p.text.startswith("back"),
    "text ILIKE 'ÖL%'": lambda p: p.text.startswith("öl"),
    "text LIKE '%\u6cb9_'": lambda p: p.text.endswith("画"),
    "text < 'b'": lambda p: p.text.encode() < b"b",
    "length(text) = 0 OR length(text) > 100": lambda p: len(p.text) == 0 or len(p.text) > 100,
    "lower(text) = 'a red fox, 8k'": lambda p: p.row_id == 1,
    "contains(lower(text), '8K')": lambda p: False,
    "NOT contains(text, 'o')": lambda p: "o" not in p.text,
    'LOWER("Text") = source': lambda p: False,
    "text = 'it''s'": lambda p: p.text == "it's",
    "text = '1=1; DROP TABLE prompts'": lambda p: False,
    "true": lambda p: True,
}


@pytest.mark.parametrize("expression", MEANINGS)
def test_a_condition_means_what_it_says(prompts: DuckPrompts, expression: str) -> None:
    """Against the same thing said in Python."""
    everything = prompts.get_many(range(len(prompts)))
    assert prompts.matching(where(expression)).tolist() == [
        p.row_id for p in everything if MEANINGS[expression](p)
    ]


REFUSED = {
    "": "empty",
    "   ": "empty",
    "1=1; DROP TABLE prompts": "'DROP' at character 6",
    "1=1);DROP TABLE prompts": "at character 4",
    "1=1) UNION SELECT (1": "at character 4",
    "n_submitted > ": "'>' at character 13",
    "row_id = 1 ORDER BY 1": "'ORDER BY' at character 12",
    "row_id = 1 LIMIT 1": "'LIMIT'",
    "row_id = 1 AS x": "'AS'",
    "text = 'a": "quote is not closed",
    "row_id = 1 -- and so on": "comment",
    "row_id /* x */ = 1": "comment",
    "prompt = 'a'": "no column 'prompt'",
    "prompts.text = 'a'": "no column 'prompts.text'",
    "information_schema.tables.table_name = 'a'": "no column",
    "text = \u2018a\u2019": "no column",
    "te\u200bxt = 'a'": "no column",
    "\uff54\uff45\uff58\uff54 = 'a'": "no column",
    "text = 'a\0'": "cannot be shown",
    "read_csv('/etc/passwd')": "READ_CSV",
    "text = read_text('/etc/passwd')": "READ_TEXT",
    "text IN (SELECT content FROM read_text('/etc/passwd'))": "SELECT content",
    "EXISTS (SELECT 1)": "EXISTS",
    "text = (SELECT 'a')": "SELECT",
    "getenv('HOME') = 'x'": "GETENV",
    "ATTACH 'x.duckdb'": "not expected",
    "PRAGMA database_list": "not expected",
    "COPY prompts TO 'x.csv'": "not expected",
    "INSTALL httpfs": "not expected",
    "SET memory_limit = '1GB'": "not expected",
    "text = current_setting('home_directory')": "CURRENT_SETTING",
    "text SIMILAR TO 'a'": "SIMILAR",
    "text ~ '(a+)+b'": "not allowed",
    "regexp_matches(text, 'a')": "REGEXP_MATCHES",
    "text || 'a' = 'b'": "not allowed",
    "n_submitted + 1 = 2": "not allowed",
    "CAST(text AS INT) = 1": "CAST",
    "text::INT = 1": "CAST",
    "text LIKE 'a' ESCAPE 'b'": "ESCAPE",
    "text LIKE text": "'text' is not a pattern",
    "text LIKE ANY ('a')": "not allowed",
    "text = ?": "not allowed",
    "text = $1": "not allowed",
    "text = :name": "not allowed",
    "text = $$a$$": "not allowed",
    "text = E'\\x41'": "not allowed",
    "text COLLATE nocase = 'a'": "COLLATE",
    "COLUMNS(*) = 1": "COLUMNS",
    "*": "not allowed",
    "count(*) > 1": "COUNT",
    "row_number() OVER () > 1": "ROW_NUMBER",
    "CASE WHEN true THEN true END": "CASE",
    "text IN ()": "not allowed",
    "text IN (1)": "'1' is a number; a text is needed",
    "n_submitted = 'a'": "a number is needed",
    "n_submitted = true": "a number is needed",
    "(row_id = 1) = (row_id = 2)": "not allowed",
    "text": "'text' is a text; a condition is needed",
    "length(row_id) = 1": "a text is needed",
    "row_id = 99999999999999999999": "too large",
    "row_id = 1e999": "too large",
    "(" * 300 + "true" + ")" * 300: "nested",
    "NOT " * 400 + "true": "nested",
    "row_id = 1 OR " * 200 + "true": "characters; at most 2,000",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_everything_else_is_refused(expression: str) -> None:
    """In one line that shows the part that is not allowed, or the place that is not understood."""
    with pytest.raises(FilterRejected) as caught:
        where(expression)
    assert REFUSED[expression] in caught.value.message
    assert "\n" not in str(caught.value)


def test_an_unknown_column_is_answered_with_the_known_ones() -> None:
    """So that the next try can be right."""
    with pytest.raises(FilterRejected) as caught:
        where("prompt = 'a'")
    assert all(name in caught.value.hint for name in COLUMN_KINDS)


def test_nothing_that_is_refused_touches_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No file is opened or made while a condition is read, whatever it says."""
    where("true")  # loads the parser
    opened: list[Any] = []
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as watch:  # pytest opens files itself when it cleans up
        watch.setattr(os, "open", lambda *words: opened.append(words))
        watch.setattr("builtins.open", lambda *words: opened.append(words))
        for expression in REFUSED:
            with pytest.raises(FilterRejected):
                where(expression)
    assert opened == []
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            [
                *COLUMN_KINDS,
                "=",
                "<>",
                "(",
                ")",
                "AND",
                "or",
                "NOT",
                "IN",
                ",",
                "'a'",
                "1",
                "-",
                "LIKE",
                "BETWEEN",
                "is",
                "null",
            ]
        )
        | st.sampled_from(
            [
                "'%_'",
                ";",
                "--",
                ".",
                "::",
                "[",
                "{",
                "SELECT",
                "lower",
                "contains",
                "\\",
                "'",
                '"',
                "$",
                "@",
                "\u00e9",
            ]
        )
        | st.text(max_size=4),
        max_size=12,
    ).map(" ".join)
)
@example("text = 'a' AND 'b' LIKE 'b'")
def test_any_text_is_a_condition_or_is_refused(prompts: DuckPrompts, expression: str) -> None:
    """Only its own error is raised; what is accepted can be answered, in known words only."""
    try:
        found = where(expression)
    except FilterRejected:
        return
    ids = prompts.matching(found)
    assert set(ids.tolist()) <= set(range(len(prompts)))
    assert expression not in compile_sql(found).sql or expression in ("true", "false")


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
        "a  red",
        "red fox",
        "é",
        "e\u0301",
        "x",
    ]
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=4))
def test_words_are_found_as_they_stand(
    prompts: DuckPrompts, wanted: list[tuple[str, bool]]
) -> None:
    """Several words, held or not, in any case, give what a full scan gives; none is a pattern."""
    condition: Predicate = Truth(True)
    for word, held in wanted:
        condition &= holds_words(word) if held else ~holds_words(word)

    def holds(prompt: Prompt, word: str) -> bool:
        folded = " ".join(word.replace("e\u0301", "é").split()).lower()
        return folded in prompt.text.lower() or folded in prompt.embedded_text.lower()

    everything = prompts.get_many(range(len(prompts)))
    expected = [
        p.row_id for p in everything if all(holds(p, word) == held for word, held in wanted)
    ]
    assert prompts.matching(condition).tolist() == expected


@pytest.mark.parametrize("text", ["", " \n", "x" * 501, "a\0b"])
def test_words_that_cannot_be_looked_for(text: str) -> None:
    """None, too many, or no text."""
    with pytest.raises(FilterRejected):
        holds_words(text)
