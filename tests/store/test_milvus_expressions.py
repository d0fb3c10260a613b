"""What of a condition Milvus is asked, in its own words."""

from __future__ import annotations

import pytest

from imprompt.core.predicates import And, Column, Comparison, In, IsNull, Literal, Lower, Or
from imprompt.store.conditions import holds_words, matches, where
from imprompt.store.milvus.expressions import columns_of, compile_filter

EXACT = {
    "n_submitted > 9": "n_submitted > 9",
    "9 > n_submitted": "n_submitted < 9",
    "n_submitted >= 2 AND n_submitted < 5": "(n_submitted >= 2) and (n_submitted < 5)",
    "n_submitted BETWEEN 2 AND 5": "(n_submitted >= 2) and (n_submitted <= 5)",
    "n_submitted < 0.5": "n_submitted <= 0",
    "n_submitted >= 0.5": "n_submitted >= 1",
    "n_submitted > -1.5": "n_submitted >= -1",
    "n_submitted = 1.5": "row_id < 0",
    "n_submitted <> 1.5": "",
    "row_id IN (0, 3) OR source = 'a'": '((row_id == 0) or (row_id == 3)) or (source == "a")',
    "NOT source = 'a.txt'": 'not (source == "a.txt")',
    "source NOT IN ('a', 'b')": 'not ((source == "a") or (source == "b"))',
    "text LIKE 'red%fox'": 'text like "red%fox"',
    "text LIKE '%fox%'": 'text like "%fox%"',
    "text ILIKE '%RED Fox%'": 'text_lower like "%red fox%"',
    "text ILIKE 'fox'": 'text_lower == "fox"',
    "lower(embedded_text) = 'fox'": 'embedded_lower == "fox"',
    "contains(text, 'red fox')": 'text like "%red fox%"',
    "text LIKE '%'": "",
    "true": "",
    "NOT true": "row_id < 0",
    "text IS NULL": "row_id < 0",
    "text IS NOT NULL": "",
}
"""Conditions that Milvus answers alone."""


@pytest.mark.parametrize("expression", EXACT)
def test_what_means_the_same_is_translated(expression: str) -> None:
    """Whole numbers, plain texts, patterns of letters."""
    found = compile_filter(where(expression))
    assert (found.expression, found.exact) == (EXACT[expression], True)


LOOKED_AT = {
    "text = '100% wool'": 'text like "% wool%"',
    "text LIKE '%back\\slash%'": 'text like "%slash%"',
    "contains(text, 'it''s a')": 'text like "%s a%"',
    "text LIKE '%l_s%'": "",
    "text < 'b'": "",
    "length(text) > 100": "",
    "lower(source) = 'a'": "",
    "text = source": "",
    "n_submitted = row_id": "",
    "NOT text = 'it''s'": "",
    "length(text) > 100 AND n_submitted > 3": "(n_submitted > 3)",
    "length(text) > 100 OR n_submitted > 3": "",
    "text = '%_\\'": "",
}
"""Conditions of which Milvus can only narrow down the rows that are looked at here."""


@pytest.mark.parametrize("expression", LOOKED_AT)
def test_of_the_rest_only_what_is_certain(expression: str) -> None:
    """Nothing with an escape, a wildcard or a quote ever reaches it."""
    found = compile_filter(where(expression))
    assert (found.expression, found.exact) == (LOOKED_AT[expression], False)


def test_words_and_regular_expressions() -> None:
    """`--contains` in lower case in two fields; regular expressions are DuckDB's."""
    found = compile_filter(holds_words("Red  FOX"))
    assert (found.expression, found.exact) == (
        '(text_lower like "%red fox%") or (embedded_lower like "%red fox%")',
        True,
    )
    assert compile_filter(matches("fox|dog")).expression == ""
    assert not compile_filter(matches("fox|dog")).exact
    assert not compile_filter(~holds_words("it's")).expression


def test_letters_in_lower_case_are_those_of_duckdb() -> None:
    """Python's lower case of this letter has two characters."""
    assert (
        compile_filter(holds_words("\u0130a")).expression
        == '(text_lower like "%ia%") or (embedded_lower like "%ia%")'
    )


def test_conditions_that_are_put_together() -> None:
    """Each part keeps its values, and every column is named, also within lower() and lists."""
    n = Column("n_duplicates")
    listed = Or((IsNull(Lower(Column("source"))), In(Column("text"), (Literal("1"), n))))
    between = And((Comparison(">=", n, Literal(3)), Comparison("<=", n, Literal(4))))
    found = compile_filter(listed & between)
    assert found.expression == "((n_duplicates >= 3) and (n_duplicates <= 4))"
    assert not found.exact
    assert columns_of(listed & ~between) == {"source", "text", "n_duplicates"}
