"""Predicates as SQL for DuckDB: known columns, and placeholders for values, which travel apart."""

from __future__ import annotations

import re
from typing import NamedTuple

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
    Truth,
)


class BoundSql(NamedTuple):
    """SQL for `WHERE`, and the values of its "?" in order. It holds no text of a user."""

    sql: str
    values: tuple[str | int | float, ...]


def compile_sql(predicate: Predicate) -> BoundSql:
    """Return the predicate as DuckDB understands it."""
    values: list[str | int | float] = []
    return BoundSql(_sql(predicate, values), tuple(values))


def _sql(part: Predicate | Operand, values: list[str | int | float]) -> str:
    """Return the SQL of a part; its values are appended in the order of their placeholders."""
    match part:
        case Column(name):
            return f'"{name}"'
        case Literal(value):
            values.append(value)
            return "?"
        case Lower(text) | Length(text):
            return f"{type(part).__name__.lower()}({_sql(text, values)})"
        case Truth(value):
            return "true" if value else "false"
        case Comparison(sign, left, right):
            return f"({_sql(left, values)} {sign} {_sql(right, values)})"
        case In(operand, options):
            first, *listed = (_sql(side, values) for side in (operand, *options))
            return f"({first} IN ({', '.join(listed)}))"
        case IsNull(operand):
            return f"({_sql(operand, values)} IS NULL)"
        case Like():
            return _like_sql(part, values)
        case Contains(text, piece):
            return f"contains({_sql(text, values)}, {_sql(piece, values)})"
        case RegexMatch(text, pattern):
            return f"regexp_matches({_sql(text, values)}, {_sql(Literal(pattern), values)}, 'i')"
        case And(parts) | Or(parts):
            joint = " AND " if isinstance(part, And) else " OR "
            return f"({joint.join(_sql(inner, values) for inner in parts)})"
        case Not(inner):
            return f"(NOT {_sql(inner, values)})"
    raise TypeError(f"{type(part).__name__} is not a part of a predicate")


def _like_sql(like: Like, values: list[str | int | float]) -> str:
    """Return `LIKE` as it stands, or as a regular expression where its pattern has a "_".

    DuckDB takes time without bound for some patterns with both wildcards; its regular expressions
    (RE2) never do.
    """
    pattern = like.pattern
    if as_regex := "_" in pattern:
        wildcards = {"%": ".*", "_": "."}
        pattern = "(?s)" + "".join(wildcards.get(char) or re.escape(char) for char in pattern)
    text, wanted = (
        _sql(Lower(side) if like.ignore_case else side, values)
        for side in (like.text, Literal(pattern))
    )
    return f"regexp_full_match({text}, {wanted})" if as_regex else f"({text} LIKE {wanted})"
