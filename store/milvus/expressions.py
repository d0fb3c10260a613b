"""Predicates in Milvus' language, so that the server finds the rows of which they are true.

Its language has no lower(), length() or contains(), and its LIKE differs between versions where a
pattern holds backslashes or wildcards that mean themselves. So what is compiled is what means the
same everywhere. Of the rest only what is certainly true of every matching row is sent, and the rows
that the server finds are checked again here: nobody may get rows of which the predicate is false.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

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
from imprompt.store.conditions import COLUMN_KINDS, ValueKind
from imprompt.store.databases import scratch

LOWERED = {"text": "text_lower", "embedded_text": "embedded_lower"}
"""The fields that hold these columns in lower case."""

_SIGNS: dict[Sign, str] = {"=": "==", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TURNED: dict[Sign, Sign] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_LONGEST = 200
_SHORTEST = 2


@dataclass(frozen=True, slots=True)
class ServerFilter:
    """An expression of Milvus that is true of all matching rows ("" is true of every row).

    Where it is `exact`, it is true of no others.
    """

    expression: str
    exact: bool


ALL = ServerFilter("", exact=True)
NONE = ServerFilter("row_id < 0", exact=True)
UNKNOWN = ServerFilter("", exact=False)


def compile_filter(predicate: Predicate) -> ServerFilter:
    """Return the predicate as Milvus understands it."""
    match predicate:
        case Truth(value):
            return ALL if value else NONE
        case Not(part):
            return _not(compile_filter(part))
        case And(parts):
            return _all_of([compile_filter(part) for part in parts])
        case Or(parts):
            return _any_of([compile_filter(part) for part in parts])
        case Comparison(sign, left, right):
            return _comparison(sign, left, right)
        case In(operand, options):
            return _any_of([_comparison("=", operand, option) for option in options])
        case IsNull(operand):
            known = not isinstance(operand, Predicate) and _field(operand)
            return NONE if known else UNKNOWN  # no column is ever NULL
        case Like(text, pattern, ignore_case):
            if "_" in pattern:
                return UNKNOWN
            sides: tuple[Operand, Operand] = text, Literal(pattern)
            if ignore_case:
                sides = Lower(text), Lower(Literal(pattern))
            return _pattern(*sides, whole=True)
        case Contains(text, part):
            return _pattern(text, part, whole=False)
    return UNKNOWN


def columns_of(part: Predicate | Operand) -> set[str]:
    """Return the names of the columns that a predicate looks at."""
    inner: tuple[Predicate | Operand, ...] = ()
    match part:
        case Column(name):
            return {name}
        case Lower(only) | Length(only) | Not(only) | IsNull(only) | Like(only) | RegexMatch(only):
            inner = (only,)
        case Comparison(_, left, right) | Contains(left, right):
            inner = left, right
        case In(operand, options):
            inner = operand, *options
        case And(parts) | Or(parts):
            inner = parts
    return {name for piece in inner for name in columns_of(piece)}


def lowered(texts: Sequence[str]) -> list[str]:
    """Return the texts in lower case as DuckDB has them: for some letters Python's differ."""
    with scratch() as connection:
        rows = connection.execute(
            "SELECT lower(t) FROM (SELECT unnest(?::VARCHAR[]) AS t)", [list(texts)]
        ).fetchall()
    return [row[0] for row in rows]


def _field(operand: Operand) -> str:
    """Return the field that holds a column, or its lower case; "" where there is none."""
    match operand:
        case Column(name):
            return name
        case Lower(Column(name)):
            return LOWERED.get(name, "")
    return ""


def _value(operand: Operand) -> str | int | float | None:
    match operand:
        case Literal(value):
            return value
        case Lower(text):
            inner = _value(text)
            return lowered([inner])[0] if isinstance(inner, str) else None
    return None


def _comparison(sign: Sign, left: Operand, right: Operand) -> ServerFilter:
    field, value = _field(left), _value(right)
    if not field and _field(right):
        field, value, sign = _field(right), _value(left), _TURNED.get(sign, sign)
    if not field or value is None:
        return UNKNOWN
    if COLUMN_KINDS.get(field) is ValueKind.NUMBER:
        return UNKNOWN if isinstance(value, str) else _number(field, sign, value)
    if not isinstance(value, str) or sign not in ("=", "<>"):
        return UNKNOWN
    if _plain(value):
        return ServerFilter(f'{field} {_SIGNS[sign]} "{value}"', exact=True)
    return _holds(field, value) if sign == "=" else UNKNOWN


def _pattern(text: Operand, pattern: Operand, *, whole: bool) -> ServerFilter:
    """Compile a pattern of "%" alone, or, where it need not be the whole text, `contains`."""
    field, value = _field(text), _value(pattern)
    is_text = COLUMN_KINDS.get(field, ValueKind.TEXT) is ValueKind.TEXT
    if not field or not is_text or not isinstance(value, str):
        return UNKNOWN
    parts = value.split("%") if whole else ["", value, ""]
    if len(parts) == 1:
        return _comparison("=", text, pattern)
    if not any(parts):
        return ALL
    if all(_plain(part) for part in parts):
        shortest = re.sub("%+", "%", "%".join(parts))
        return ServerFilter(f'{field} like "{shortest}"', exact=True)
    return _holds(field, *parts)


def _number(field: str, sign: Sign, value: float) -> ServerFilter:
    """Compare a whole number with any number, in whole numbers, which is all that Milvus takes."""
    if not math.isfinite(value):
        return UNKNOWN
    floor = math.floor(value)
    if value == floor:
        return ServerFilter(f"{field} {_SIGNS[sign]} {floor}", exact=True)
    if sign in ("=", "<>"):
        return ALL if sign == "<>" else NONE
    if sign in ("<", "<="):
        return ServerFilter(f"{field} <= {floor}", exact=True)
    return ServerFilter(f"{field} >= {floor + 1}", exact=True)


def _plain(text: str) -> bool:
    """Return whether the text means itself in quotes and patterns of every version of Milvus."""
    return len(text) <= _LONGEST and all(char.isalnum() or char in " -.,:/" for char in text)


def _holds(field: str, *texts: str) -> ServerFilter:
    """Say of a field that holds all of these texts that it holds their longest plain run."""
    runs = (run[:_LONGEST] for text in texts for run in _plain_runs(text))
    longest = max(runs, key=len, default="")
    if len(longest) < _SHORTEST:
        return UNKNOWN
    return ServerFilter(f'{field} like "%{longest}%"', exact=False)


def _plain_runs(text: str) -> list[str]:
    return "".join(char if _plain(char) else "\0" for char in text).split("\0")


def _not(part: ServerFilter) -> ServerFilter:
    if not part.exact:
        return UNKNOWN
    if part in (ALL, NONE):
        return NONE if part == ALL else ALL
    return ServerFilter(f"not ({part.expression})", exact=True)


def _all_of(parts: Sequence[ServerFilter]) -> ServerFilter:
    expressions = [part.expression for part in parts if part.expression]
    return ServerFilter(
        " and ".join(f"({expression})" for expression in expressions),
        exact=all(part.exact for part in parts),
    )


def _any_of(parts: Sequence[ServerFilter]) -> ServerFilter:
    if ALL in parts or any(not part.expression for part in parts):
        return ALL if ALL in parts else UNKNOWN
    expressions = dict.fromkeys(part.expression for part in parts)
    return ServerFilter(
        " or ".join(f"({expression})" for expression in expressions),
        exact=all(part.exact for part in parts),
    )
