"""Conditions on the columns of prompts, as small trees of values that every backend compiles.

`imprompt.store.conditions` makes them of what a user types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf
from typing import TypeAlias

Sign: TypeAlias = OneOf["=", "<>", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the prompts, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A text or a number."""

    value: str | int | float


@dataclass(frozen=True, slots=True)
class Lower:
    """A text in lower case."""

    text: Operand


@dataclass(frozen=True, slots=True)
class Length:
    """The number of characters of a text."""

    text: Operand


Operand: TypeAlias = Column | Literal | Lower | Length


class Predicate:
    """A condition that is true or false of a prompt. Joined with `&` and `|`, inverted with `~`."""

    __slots__ = ()

    def __and__(self, other: Predicate) -> Predicate:
        return And((*(self.parts if isinstance(self, And) else (self,)), other))

    def __or__(self, other: Predicate) -> Predicate:
        return Or((*(self.parts if isinstance(self, Or) else (self,)), other))

    def __invert__(self) -> Predicate:
        return Not(self)


@dataclass(frozen=True, slots=True)
class Truth(Predicate):
    """True, or false, of every prompt."""

    value: bool


@dataclass(frozen=True, slots=True)
class Comparison(Predicate):
    """Two texts or two numbers, compared."""

    sign: Sign
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class In(Predicate):
    """A text or a number that equals one of several."""

    operand: Operand
    options: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class IsNull(Predicate):
    """Whether a value is missing; it never is, since every column has a value in every row."""

    operand: Operand | Predicate


@dataclass(frozen=True, slots=True)
class Like(Predicate):
    """A text that fits a pattern: "%" stands for any characters, "_" for one."""

    text: Operand
    pattern: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Contains(Predicate):
    """A text that holds another one."""

    text: Operand
    part: Operand


@dataclass(frozen=True, slots=True)
class RegexMatch(Predicate):
    """A text in which a regular expression (RE2) matches, ignoring case."""

    text: Operand
    pattern: str


@dataclass(frozen=True, slots=True)
class And(Predicate):
    """True where all parts are."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or(Predicate):
    """True where any part is."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not(Predicate):
    """True where the part is false."""

    part: Predicate
