"""A condition in Milvus' own language, so that the server finds the rows of which it is true.

Its language has no lower(), length() or contains(), its LIKE differs between versions where a
pattern holds backslashes or wildcards that mean themselves, and nobody may be answered rows that
his condition is not true of. So what is translated is what means the same everywhere; of the rest
only what is certainly true of every row that is meant, and the rows that the server finds are
looked at again here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imprompt.core.values import Condition
from imprompt.store.conditions import KINDS, ColumnKind
from imprompt.store.databases import scratch

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

LOWERED = {"text": "text_lower", "embedded_text": "embedded_lower"}
"""The fields that hold these columns in lower case."""

_COMPARED = {"EQ": "==", "NEQ": "!=", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_LONGEST = 200
_SHORTEST = 2


@dataclass(frozen=True, slots=True)
class Translated:
    """`expression` is true of all rows that are meant ("" for every row), and of no others where it is `exact`."""

    expression: str
    exact: bool


ALL = Translated("", exact=True)
NONE = Translated("row_id < 0", exact=True)
UNKNOWN = Translated("", exact=False)


def translate(condition: Condition) -> Translated:
    """The condition as Milvus understands it."""
    from sqlglot import parse_one
    from sqlglot.dialects.duckdb import DuckDB

    places = iter(range(len(condition.values)))
    numbered = re.sub(r"\?", lambda _: f"${next(places)}", condition.sql)
    return _Translator(condition.values).truth(parse_one(numbered, dialect=DuckDB))


def lowered(texts: Sequence[str]) -> list[str]:
    """The texts in lower case, as DuckDB has them: for some letters Python's differ."""
    with scratch() as connection:
        rows = connection.execute(
            "SELECT lower(t) FROM (SELECT unnest(?::VARCHAR[]) AS t)", [list(texts)]
        ).fetchall()
    return [row[0] for row in rows]


@dataclass(frozen=True, slots=True)
class _Translator:
    values: tuple[str | int | float, ...]

    def truth(self, node: Expr) -> Translated:
        """A node that is true or false."""
        name, parts = type(node).__name__, node.args
        if name == "Paren":
            return self.truth(parts["this"])
        if name == "Boolean":
            return ALL if parts["this"] else NONE
        if name == "Not":
            return _not(self.truth(parts["this"]))
        if name in ("And", "Or"):
            found = [self.truth(part) for part in node.flatten()]
            return _all_of(found) if name == "And" else _any_of(found)
        if name in _COMPARED:
            return self._comparison(_COMPARED[name], parts["this"], parts["expression"])
        if name == "Between":
            low, high = (
                self._comparison(sign, parts["this"], parts[end])
                for sign, end in ((">=", "low"), ("<=", "high"))
            )
            return _all_of([low, high])
        if name == "In":
            return self._member(parts["this"], parts["expressions"])
        if name == "Is":
            return NONE if self._field(parts["this"]) else UNKNOWN  # no column is ever NULL
        if name in ("Like", "Contains"):
            return self._pattern(parts["this"], parts["expression"], whole=name == "Like")
        return UNKNOWN

    def _field(self, node: Expr) -> str:
        """The field that a node is: a column, or one in lower case that is stored so;

        "" where it is neither.
        """
        name = type(node).__name__
        if name == "Paren":
            return self._field(node.args["this"])
        if name == "Column":
            return node.name.lower() if node.name.lower() in KINDS else ""
        if name == "Lower" and type(node.args["this"]).__name__ == "Column":
            return LOWERED.get(node.args["this"].name.lower(), "")
        return ""

    def _value(self, node: Expr) -> str | int | float | None:
        name = type(node).__name__
        if name == "Paren":
            return self._value(node.args["this"])
        if name == "Placeholder":
            return self.values[int(str(node.args["this"]))]
        if name == "Lower":
            inside = self._value(node.args["this"])
            return lowered([inside])[0] if isinstance(inside, str) else None
        return None

    def _comparison(self, sign: str, left: Expr, right: Expr) -> Translated:
        field, value = self._field(left), self._value(right)
        if not field and self._field(right):
            field, value, sign = self._field(right), self._value(left), _TURNED.get(sign, sign)
        if not field or value is None:
            return UNKNOWN
        if KINDS.get(field) is ColumnKind.NUMBER:
            return UNKNOWN if isinstance(value, str) else _number(field, sign, value)
        if not isinstance(value, str) or sign not in ("==", "!="):
            return UNKNOWN
        if _plain(value):
            return Translated(f'{field} {sign} "{value}"', exact=True)
        return _holds(field, value) if sign == "==" else UNKNOWN

    def _member(self, left: Expr, options: Sequence[Expr]) -> Translated:
        return _any_of([self._comparison("==", left, option) for option in options])

    def _pattern(self, left: Expr, right: Expr, *, whole: bool) -> Translated:
        """`LIKE` with a pattern of "%" alone (one with "_" is a regular expression by now), or `contains`."""
        field, value = self._field(left), self._value(right)
        if (
            KINDS.get(field, ColumnKind.TEXT) is not ColumnKind.TEXT
            or not field
            or not isinstance(value, str)
        ):
            return UNKNOWN
        parts = value.split("%") if whole else ["", value, ""]
        if len(parts) == 1:
            return self._comparison("==", left, right)
        if not any(parts):
            return ALL
        if all(_plain(part) for part in parts):
            pattern = re.sub("%+", "%", "%".join(parts))
            return Translated(f'{field} like "{pattern}"', exact=True)
        return _holds(field, *parts)


def _number(field: str, sign: str, value: float) -> Translated:
    """A whole number compared with any number, in whole numbers, which is all that Milvus compares them with."""
    if isinstance(value, bool) or not math.isfinite(value):
        return UNKNOWN
    if value == math.floor(value):
        return Translated(f"{field} {sign} {int(value)}", exact=True)
    if sign in ("==", "!="):
        return ALL if sign == "!=" else NONE
    return Translated(
        f"{field} {'<=' if sign in ('<', '<=') else '>='} {math.floor(value) + (sign in ('>', '>='))}",
        exact=True,
    )


def _plain(text: str) -> bool:
    """Whether the text means itself between quotes and in a pattern, in every version of Milvus."""
    return len(text) <= _LONGEST and all(char.isalnum() or char in " -.,:/" for char in text)


def _holds(field: str, *texts: str) -> Translated:
    """What is certain where a field holds all of these texts: it holds the longest plain run of letters in them."""
    runs = (run[:_LONGEST] for text in texts for run in _plain_runs(text))
    longest = max(runs, key=len, default="")
    return (
        Translated(f'{field} like "%{longest}%"', exact=False)
        if len(longest) >= _SHORTEST
        else UNKNOWN
    )


def _plain_runs(text: str) -> list[str]:
    return "".join(char if _plain(char) else "\0" for char in text).split("\0")


def _not(part: Translated) -> Translated:
    if not part.exact:
        return UNKNOWN
    if part in (ALL, NONE):
        return NONE if part == ALL else ALL
    return Translated(f"not ({part.expression})", exact=True)


def _all_of(parts: Sequence[Translated]) -> Translated:
    expressions = [part.expression for part in parts if part.expression]
    return Translated(
        " and ".join(f"({expression})" for expression in expressions),
        exact=all(part.exact for part in parts),
    )


def _any_of(parts: Sequence[Translated]) -> Translated:
    if ALL in parts or any(not part.expression for part in parts):
        return ALL if ALL in parts else UNKNOWN
    expressions = dict.fromkeys(part.expression for part in parts)
    return Translated(
        " or ".join(f"({expression})" for expression in expressions),
        exact=all(part.exact for part in parts),
    )


def columns_of(condition: Condition) -> set[str]:
    """The columns of `KINDS` that a condition names."""
    words: set[Any] = set(re.findall(r"[a-z_]+", condition.sql.lower()))
    return words & set(KINDS)
