"""Filters: which prompts may be answered, by the store's columns, words, and artists named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from imprompt.core.errors import FilterRejected
from imprompt.core.predicates import Predicate
from imprompt.core.protocols import PromptStore
from imprompt.core.values import Selection
from imprompt.retriever.artists import load_artists
from imprompt.store.conditions import holds_words, where

MAX_WORDS = 20
"""How many `contains` and how many `exclude` there may be."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The conditions that a prompt must meet to be answered; without arguments, all prompts do.

    Args:
        where: a condition on the columns of the store; see `imprompt.store.conditions.where`.
        contains: words that each must be in the prompt as they stand, ignoring case.
        exclude: words of which none may be in it.
        no_artists: leave out prompts that name an artist; see `imprompt.retriever.artists.Artists`.

    Raises:
        FilterRejected: one of them cannot be used.
    """

    where: str | None = None
    contains: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    no_artists: bool = False

    def __post_init__(self) -> None:
        for name, words in (("contains", self.contains), ("exclude", self.exclude)):
            if len(words) > MAX_WORDS:
                raise FilterRejected(
                    f"{len(words)} texts were given for {name}; the limit is {MAX_WORDS}."
                )
        self.predicate()

    def __bool__(self) -> bool:
        return bool(self.to_json())

    def __str__(self) -> str:
        """Show them in the words of the command line."""
        parts = [] if self.where is None else [f"where {self.where}"]
        parts += [f"contains {words!r}" for words in self.contains]
        parts += [f"without {words!r}" for words in self.exclude]
        return ", ".join([*parts, *(["no artists"] if self.no_artists else [])])

    def predicate(self) -> Predicate | None:
        """Return the conditions that the store can check; None where there are none."""
        parts = [] if self.where is None else [where(self.where)]
        parts += [holds_words(words) for words in self.contains]
        parts += [~holds_words(words) for words in self.exclude]
        return reduce(and_, parts) if parts else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values of the filters that are set."""
        parts = {
            "where": self.where,
            "contains": self.contains,
            "exclude": self.exclude,
            "no_artists": self.no_artists,
        }
        return {name: part for name, part in parts.items() if part}


ALL = Filters()


@dataclass(frozen=True, slots=True)
class PassingPrompts:
    """The prompts of one version that pass filters: of `rows` (None for all) those accepted."""

    rows: Selection | None = None
    accepts: Callable[[str], bool] = lambda _text: True


def select(filters: Filters, prompts: PromptStore) -> PassingPrompts:
    """Look up the prompts of a version that pass the filters.

    Raises:
        ConfigError: there is no list of artists.
        StoreError: the prompts cannot be read.
    """
    predicate = filters.predicate()
    rows = None if predicate is None else Selection(prompts.matching(predicate), predicate)
    if not filters.no_artists:
        return PassingPrompts(rows)
    artists = load_artists()
    return PassingPrompts(rows, lambda text: not artists.named_in(text))
