"""Conditions that a user types, read into predicates that can do nothing but compare columns.

sqlglot parses the text, and every node of its tree must be one of the few that are known here. No
text of a user reaches a backend as anything but a value.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import FilterRejected, first_line
from imprompt.core.predicates import (
    And,
    Column,
    Comparison,
    Contains,
    In,
    IsNull,
    Length,
    Like,
    Literal,
    Lower,
    Not,
    Operand,
    Or,
    Predicate,
    RegexMatch,
    Sign,
    Truth,
)
from imprompt.core.values import normalize_text
from imprompt.store.databases import scratch
from imprompt.store.duckdb_import import import_duckdb

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

MAX_WHERE_CHARS = 2000
MAX_WORDS_CHARS = 500


class ValueKind(Enum):
    """The kind of a part of a condition; only equal kinds are compared."""

    TEXT = "text"
    NUMBER = "number"
    TRUTH = "condition"


COLUMN_KINDS = {
    "row_id": ValueKind.NUMBER,
    "prompt_key": ValueKind.TEXT,
    "text": ValueKind.TEXT,
    "embedded_text": ValueKind.TEXT,
    "source": ValueKind.TEXT,
    "source_key": ValueKind.TEXT,
    "n_submitted": ValueKind.NUMBER,
    "group_id": ValueKind.NUMBER,
    "n_duplicates": ValueKind.NUMBER,
}
"""The columns that a condition may name, and what they hold."""

_ALLOWED = (
    "=, <>, <, <=, >, >=, AND, OR, NOT, IN, LIKE, ILIKE, BETWEEN, IS NULL, "
    "length(), lower(), contains()"
)
_SIGNS: dict[str, Sign] = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_SEARCHED = (Column("text"), Column("embedded_text"))
_LARGEST = 2**63 - 1
_SHOWN_CHARS = 60


def where(expression: str) -> Predicate:
    """Read a condition that a user typed in the syntax of SQL.

    It may hold comparisons, AND, OR, NOT, IN, LIKE, ILIKE, BETWEEN, IS NULL, texts in single
    quotes, numbers, the names of `COLUMN_KINDS`, and `length`, `lower` and `contains`.

    Raises:
        FilterRejected: it is too long, cannot be parsed (with the place), names an unknown column
            (the known ones are listed), or holds anything but the above, which is shown.
    """
    from sqlglot import exp, parse_one
    from sqlglot.dialects.duckdb import DuckDB
    from sqlglot.errors import ParseError, TokenError

    _check_length("condition", expression, MAX_WHERE_CHARS)
    try:
        if any(token.comments for token in DuckDB().tokenize(expression)):
            raise FilterRejected("A comment is not allowed in a condition.")
        tree: Any = parse_one(expression, dialect=DuckDB, into=exp.Condition)
        return _predicate(tree)
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


def holds_words(words: str) -> Predicate:
    """Match prompts that hold these words as they stand, ignoring case and runs of white space.

    They are looked for in the text that is shown and in the one that the encoder saw.

    Raises:
        FilterRejected: there are no words, or they are too long.
    """
    wanted = normalize_text(words)
    _check_length("text to look for", wanted, MAX_WORDS_CHARS)
    return Or(tuple(Contains(Lower(text), Lower(Literal(wanted))) for text in _SEARCHED))


def matches(pattern: str) -> Predicate:
    """Match prompts in which a regular expression is found, ignoring case, in linear time.

    It is looked for in the text that is shown and in the one that the encoder saw. The syntax is
    that of RE2 (https://github.com/google/re2/wiki/Syntax).

    Raises:
        FilterRejected: there is no expression, or it is too long or not understood.
    """
    duckdb = import_duckdb()
    _check_length("regular expression", pattern, MAX_WORDS_CHARS)
    try:
        with scratch() as connection:
            connection.execute("SELECT regexp_matches('', ?, 'i')", [pattern])
    except duckdb.Error as error:
        raise FilterRejected(
            f"{_cut(pattern)} is not a regular expression: {first_line(error)}."
        ) from error
    return Or(tuple(RegexMatch(text, pattern) for text in _SEARCHED))


def _check_length(label: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise FilterRejected(
            f"The {label} has {len(text):,} characters; at most {limit:,} are read."
        )
    if not text.strip():
        raise FilterRejected(f"The {label} is empty.", hint=_hint() if label == "condition" else "")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise FilterRejected(
            f"The {label} holds characters that cannot be shown: {text[:_SHOWN_CHARS]!r}."
        )


def _hint() -> str:
    return f"It may use {_ALLOWED}, and the columns {', '.join(COLUMN_KINDS)}."


def _place(errors: list[dict[str, Any]]) -> str:
    if not errors:
        return ""
    first = errors[0]
    column = first["col"] - len(first["highlight"]) + 1
    return f": {_cut(first['highlight'])} at character {column} is not expected"


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")


def _shown(node: Expr) -> str:
    return _cut(node.sql("duckdb"))


def _refused(node: Expr) -> FilterRejected:
    return FilterRejected(f"{_shown(node)} is not allowed in a condition.", hint=_hint())


def _wrong_kind(node: Expr, kind: ValueKind, wanted: ValueKind) -> FilterRejected:
    return FilterRejected(
        f"{_shown(node)} is a {kind.value}; a {wanted.value} is needed there.", hint=_hint()
    )


def _predicate(node: Expr) -> Predicate:
    """Read a node that must be a condition."""
    part = _read(node)
    if not isinstance(part, Predicate):
        raise _wrong_kind(node, _kind(part), ValueKind.TRUTH)
    return part


def _operand(node: Expr, wanted: ValueKind) -> Operand:
    """Read a node that must be a text, or a number."""
    part = _read(node)
    if isinstance(part, Predicate) or _kind(part) is not wanted:
        raise _wrong_kind(node, _kind(part), wanted)
    return part


def _kind(part: Predicate | Operand) -> ValueKind:
    match part:
        case Column(name):
            return COLUMN_KINDS[name]
        case Literal(value):
            return ValueKind.TEXT if isinstance(value, str) else ValueKind.NUMBER
        case Lower():
            return ValueKind.TEXT
        case Length():
            return ValueKind.NUMBER
    return ValueKind.TRUTH


def _read(node: Expr) -> Predicate | Operand:
    """Return what a node means; only the forms that stand here mean anything."""
    name = type(node).__name__
    if name in _SIGNS:
        left, right = _alike(*_parts(node, "this", "expression"))
        return Comparison(_SIGNS[name], left, right)
    if name in ("And", "Or"):
        _parts(node, "this", "expression")
        parts = tuple(_predicate(part) for part in node.flatten())
        return And(parts) if name == "And" else Or(parts)
    if name == "Not":
        return Not(_predicate(_only(node)))
    if name == "Paren":
        return _read(_only(node))
    if name == "Between":
        value, low, high = _alike(*_parts(node, "this", "low", "high"))
        return And((Comparison(">=", value, low), Comparison("<=", value, high)))
    if name in ("Like", "ILike"):
        return _like(node, ignore_case=name == "ILike")
    if name == "Is":
        value, null = _parts(node, "this", "expression")
        if type(null).__name__ != "Null":
            raise _refused(node)
        return IsNull(_value(value))
    if name == "In":
        if set(_set_parts(node)) != {"this", "expressions"}:
            raise _refused(node)
        value, *options = _alike(node.this, *node.expressions)
        return In(value, tuple(options))
    return _value(node)


def _value(node: Expr) -> Predicate | Operand:
    """Read a column, a literal, or a function of such."""
    name = type(node).__name__
    if name == "Column":
        return _column(node)
    if name == "Literal":
        return Literal(node.this) if node.is_string else _number(node, node.this)
    if name == "Neg" and type(node.this).__name__ == "Literal" and not node.this.is_string:
        return _number(node, f"-{node.this.this}")
    if name == "Boolean":
        return Truth(bool(node.this))
    if name == "Paren":
        return _value(_only(node))
    if name in ("Length", "Lower"):
        text = _operand(_only(node), ValueKind.TEXT)
        return Length(text) if name == "Length" else Lower(text)
    if name == "Contains":
        text, part = (_operand(side, ValueKind.TEXT) for side in _parts(node, "this", "expression"))
        return Contains(text, part)
    raise _refused(node)


def _column(node: Expr) -> Column:
    name = node.name.lower()
    if set(_set_parts(node)) != {"this"} or name not in COLUMN_KINDS:
        raise FilterRejected(
            f"There is no column {_shown(node)}.", hint=f"There are {', '.join(COLUMN_KINDS)}."
        )
    return Column(name)


def _number(node: Expr, text: str) -> Literal:
    try:
        value: int | float = int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)
    except ValueError as error:
        raise _refused(node) from error
    if not -_LARGEST <= value <= _LARGEST:
        raise FilterRejected(
            f"The number {_cut(text)} is too large.", hint=f"It is at most {_LARGEST}."
        )
    return Literal(value)


def _like(node: Expr, *, ignore_case: bool) -> Predicate:
    """Read `LIKE` with "%" for any characters and "_" for one."""
    text, pattern = _parts(node, "this", "expression", "negate")[:2]
    value, _ = _operand(text, ValueKind.TEXT), _operand(pattern, ValueKind.TEXT)
    if type(pattern).__name__ != "Literal":
        raise FilterRejected(
            f"{_shown(pattern)} is not a pattern.", hint="LIKE takes a text in single quotes."
        )
    like = Like(value, pattern.this, ignore_case)
    return Not(like) if node.args.get("negate") else like


def _alike(*nodes: Expr) -> list[Operand]:
    """Read the parts of a comparison, which are all texts or all numbers."""
    first = _value(nodes[0])
    if isinstance(first, Predicate):
        raise FilterRejected(
            f"{_shown(nodes[0])} is a condition and cannot be compared.", hint=_hint()
        )
    return [first, *(_operand(node, _kind(first)) for node in nodes[1:])]


def _parts(node: Expr, *names: str) -> list[Any]:
    """Return the parts of a node by name; one that has others means more than is known here."""
    if not set(_set_parts(node)) <= set(names):
        raise _refused(node)
    return [node.args.get(name) for name in names]


def _only(node: Expr) -> Any:
    """Return the part of a node that has one."""
    return _parts(node, "this")[0]


def _set_parts(node: Expr) -> list[str]:
    return [name for name, part in node.args.items() if part not in (None, False, [])]
