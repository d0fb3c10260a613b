"""Which prompts are meant: a condition on the columns of the store, from what a user types, that can do nothing but compare.

The text of a user is parsed into a tree, and every node of it must be one of those that stand here.
What DuckDB gets to see is written anew from the tree: names of known columns, and places for values
that travel apart. Nothing of the user's text reaches it.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from imprompt.core.errors import FilterRejected, first_line
from imprompt.core.values import Condition, normalize_text
from imprompt.store.databases import scratch

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

    Part: TypeAlias = "tuple[Condition, ColumnKind]"

MAX_WHERE_CHARS = 2000
MAX_WORDS_CHARS = 500


class ColumnKind(Enum):
    """What a part of a condition is; only equal kinds are compared."""

    TEXT = "text"
    NUMBER = "number"
    TRUTH = "condition"


KINDS = {
    "row_id": ColumnKind.NUMBER,
    "prompt_key": ColumnKind.TEXT,
    "text": ColumnKind.TEXT,
    "embedded_text": ColumnKind.TEXT,
    "source": ColumnKind.TEXT,
    "source_key": ColumnKind.TEXT,
    "n_submitted": ColumnKind.NUMBER,
    "group_id": ColumnKind.NUMBER,
    "n_duplicates": ColumnKind.NUMBER,
}
"""The columns that a condition may name, and what they hold."""

_ALLOWED = "=, <>, <, <=, >, >=, AND, OR, NOT, IN, LIKE, ILIKE, BETWEEN, IS NULL, length(), lower(), contains()"
_COMPARISONS = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_FUNCTIONS = {"Length": ("length", ColumnKind.NUMBER), "Lower": ("lower", ColumnKind.TEXT)}
_LARGEST = 2**63 - 1
_SHOWN_CHARS = 60


def where(expression: str) -> Condition:
    """The condition that a user typed, in the syntax of SQL.

    Comparisons, AND, OR, NOT, IN, LIKE, ILIKE, BETWEEN, IS NULL, texts in single quotes, numbers,
    the names of `KINDS`, and `length`, `lower` and `contains`. Nothing else.

    Raises:
        FilterRejected: too long, not understood (with the place), another column (the known ones
            are listed), or anything else than the above, which is shown.
    """
    from sqlglot import exp, parse_one
    from sqlglot.dialects.duckdb import DuckDB
    from sqlglot.errors import ParseError, TokenError

    _check_length("condition", expression, MAX_WHERE_CHARS)
    try:
        if any(token.comments for token in DuckDB().tokenize(expression)):
            raise FilterRejected("A comment is not allowed in a condition.")
        tree: Any = parse_one(expression, dialect=DuckDB, into=exp.Condition)
        return _part(tree, ColumnKind.TRUTH)
    except ParseError as error:
        raise FilterRejected(
            f"The condition is not understood{_place(error.errors)}.", hint=_hint()
        ) from error
    except TokenError as error:
        raise FilterRejected(
            "The condition is not understood: a quote is not closed.",
            hint="Texts stand in single quotes.",
        ) from error
    except RecursionError as error:
        raise FilterRejected(
            "The condition is nested too deeply.", hint="Use fewer parentheses."
        ) from error


def holds_words(words: str) -> Condition:
    """Prompts that hold these words as they stand, whatever their case and the white space between them.

    Looked for in the text as it is shown and in what the encoder saw.

    Raises:
        FilterRejected: no words, or too long.
    """
    wanted = (normalize_text(words),)
    _check_length("text to look for", wanted[0], MAX_WORDS_CHARS)
    return Condition("contains(lower(text), lower(?))", wanted) | Condition(
        "contains(lower(embedded_text), lower(?))", wanted
    )


def matches(pattern: str) -> Condition:
    """Prompts in which a regular expression (RE2, https://github.com/google/re2/wiki/Syntax) matches, whatever the case.

    Looked for in the text as it is shown and in what the encoder saw; takes linear time.

    Raises:
        FilterRejected: no expression, too long, or not understood.
    """
    import duckdb

    _check_length("regular expression", pattern, MAX_WORDS_CHARS)
    try:
        with scratch() as connection:
            connection.execute("SELECT regexp_matches('', ?, 'i')", [pattern])
    except duckdb.Error as error:
        raise FilterRejected(
            f"{_cut(pattern)} is no regular expression: {first_line(error)}."
        ) from error
    found = Condition("regexp_matches(text, ?, 'i')", (pattern,))
    return found | Condition("regexp_matches(embedded_text, ?, 'i')", (pattern,))


def _check_length(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise FilterRejected(
            f"The {what} has {len(text):,} characters; at most {limit:,} are read."
        )
    if not text.strip():
        raise FilterRejected(f"The {what} is empty.", hint=_hint() if what == "condition" else "")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise FilterRejected(
            f"The {what} holds characters that cannot be shown: {text[:_SHOWN_CHARS]!r}."
        )


def _hint() -> str:
    return f"It may use {_ALLOWED}, and the columns {', '.join(KINDS)}."


def _place(errors: list[dict[str, Any]]) -> str:
    if not errors:
        return ""
    first = errors[0]
    column = first["col"] - len(first["highlight"]) + 1
    return f": {_cut(first['highlight'])} at character {column} is not expected"


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")


def _refused(node: Expr) -> FilterRejected:
    return FilterRejected(
        f"{_cut(node.sql('duckdb'))} is not allowed in a condition.", hint=_hint()
    )


def _part(node: Expr, wanted: ColumnKind) -> Condition:
    """A node of which a certain kind is wanted."""
    found, kind = _translate(node)
    if kind is not wanted:
        raise FilterRejected(
            f"{_cut(node.sql('duckdb'))} is a {kind.value}; a {wanted.value} is needed there.",
            hint=_hint(),
        )
    return found


def _translate(node: Expr) -> Part:
    """What a node of the tree means; only the forms that stand here have a meaning."""
    name = type(node).__name__
    if name in _COMPARISONS:
        return _joined(
            f" {_COMPARISONS[name]} ", _alike(*_parts(node, "this", "expression"))
        ), ColumnKind.TRUTH
    if name in ("And", "Or"):
        _parts(node, "this", "expression")
        return _joined(
            f" {name.upper()} ", [_part(part, ColumnKind.TRUTH) for part in node.flatten()]
        ), ColumnKind.TRUTH
    if name == "Not":
        return ~_part(_only(node), ColumnKind.TRUTH), ColumnKind.TRUTH
    if name == "Paren":
        return _translate(_only(node))
    if name == "Between":
        value, low, high = _alike(*_parts(node, "this", "low", "high"))
        return Condition(
            f"{value.sql} BETWEEN {low.sql} AND {high.sql}", value.values + low.values + high.values
        ), ColumnKind.TRUTH
    if name in ("Like", "ILike"):
        return _like(node, folded=name == "ILike"), ColumnKind.TRUTH
    return _member(node) if name in ("In", "Is") else _value(node)


def _member(node: Expr) -> Part:
    """`IN (…)` and `IS NULL`."""
    if type(node).__name__ == "Is":
        value, null = _parts(node, "this", "expression")
        if type(null).__name__ != "Null":
            raise _refused(node)
        found, _ = _value(value)
        return Condition(f"{found.sql} IS NULL", found.values), ColumnKind.TRUTH
    if set(_set_parts(node)) != {"this", "expressions"}:
        raise _refused(node)
    value, *options = _alike(node.this, *node.expressions)
    inside = _joined(", ", options)
    return Condition(f"{value.sql} IN {inside.sql}", value.values + inside.values), ColumnKind.TRUTH


def _value(node: Expr) -> Part:
    """A column, a literal, or a function of such."""
    name = type(node).__name__
    if name == "Column":
        return _column(node)
    if name == "Literal":
        return (
            (Condition("?", (node.this,)), ColumnKind.TEXT)
            if node.is_string
            else _number(node, node.this)
        )
    if name == "Neg" and type(node.this).__name__ == "Literal" and not node.this.is_string:
        return _number(node, f"-{node.this.this}")
    if name == "Boolean":
        return Condition("true" if node.this else "false"), ColumnKind.TRUTH
    if name == "Paren":
        return _value(_only(node))
    if name in _FUNCTIONS:
        function, kind = _FUNCTIONS[name]
        inside = _part(_only(node), ColumnKind.TEXT)
        return Condition(f"{function}({inside.sql})", inside.values), kind
    if name == "Contains":
        inside = _joined(
            ", ", [_part(part, ColumnKind.TEXT) for part in _parts(node, "this", "expression")]
        )
        return Condition(f"contains{inside.sql}", inside.values), ColumnKind.TRUTH
    raise _refused(node)


def _column(node: Expr) -> Part:
    name = node.name.lower()
    if set(_set_parts(node)) != {"this"} or name not in KINDS:
        raise FilterRejected(
            f"There is no column {_cut(node.sql('duckdb'))}.", hint=f"There are {', '.join(KINDS)}."
        )
    return Condition(f'"{name}"'), KINDS[name]


def _number(node: Expr, text: str) -> Part:
    try:
        value: int | float = int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)
    except ValueError as error:
        raise _refused(node) from error
    if not -_LARGEST <= value <= _LARGEST:
        raise FilterRejected(
            f"The number {_cut(text)} is too large.", hint=f"It is at most {_LARGEST}."
        )
    return Condition("?", (value,)), ColumnKind.NUMBER


def _like(node: Expr, *, folded: bool) -> Condition:
    """`LIKE` with "%" for any characters and "_" for one.

    DuckDB takes time without bound for some patterns with both, its regular expressions (RE2) never
    do.
    """
    text, pattern = _parts(node, "this", "expression", "negate")[:2]
    value, wanted = _part(text, ColumnKind.TEXT), _part(pattern, ColumnKind.TEXT)
    if type(pattern).__name__ != "Literal":
        raise FilterRejected(
            f"{_cut(pattern.sql('duckdb'))} is no pattern.",
            hint="LIKE takes a text in single quotes.",
        )
    left, right = (f"lower({value.sql})", "lower(?)") if folded else (value.sql, "?")
    if "_" in pattern.this:
        expression = "(?s)" + "".join(
            {"%": ".*", "_": "."}.get(char) or re.escape(char) for char in pattern.this
        )
        found = Condition(f"regexp_full_match({left}, {right})", (*value.values, expression))
    else:
        found = Condition(f"{left} LIKE {right}", (*value.values, *wanted.values))
    return ~found if node.args.get("negate") else found


def _alike(*nodes: Expr) -> list[Condition]:
    """The parts of a comparison, which are all texts or all numbers."""
    first, kind = _value(nodes[0])
    if kind is ColumnKind.TRUTH:
        raise FilterRejected(
            f"{_cut(nodes[0].sql('duckdb'))} is a condition and cannot be compared.", hint=_hint()
        )
    return [first, *(_part(node, kind) for node in nodes[1:])]


def _parts(node: Expr, *names: str) -> list[Any]:
    """The parts of a node by name, when it has no others: a form that has more means more than is known here."""
    if not set(_set_parts(node)) <= set(names):
        raise _refused(node)
    return [node.args.get(name) for name in names]


def _only(node: Expr) -> Any:
    """The part of a node that has one."""
    return _parts(node, "this")[0]


def _set_parts(node: Expr) -> list[str]:
    return [name for name, part in node.args.items() if part not in (None, False, [])]


def _joined(separator: str, conditions: list[Condition]) -> Condition:
    return Condition(
        f"({separator.join(condition.sql for condition in conditions)})",
        tuple(value for condition in conditions for value in condition.values),
    )
