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
from imprompt.core.values import Selection, normalize_text
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


def _any_text(_text: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class PassingPrompts:
    """The prompts of one version that pass filters: of `rows` (None for all) those accepted.

    `says` tells whether a phrase may be part of an answer.
    """

    rows: Selection | None = None
    accepts: Callable[[str], bool] = _any_text
    says: Callable[[str], bool] = _any_text

    @property
    def accepts_all(self) -> bool:
        """Return whether each of the rows passes, whatever its text."""
        return self.accepts is _any_text

    @property
    def all_pass(self) -> bool:
        """Return whether no filter is set."""
        return self.rows is None and self.accepts_all


def select(filters: Filters, prompts: PromptStore) -> PassingPrompts:
    """Look up the prompts of a version that pass the filters.

    Raises:
        ConfigError: there is no list of artists.
        StoreError: the prompts cannot be read.
    """
    predicate = filters.predicate()
    rows = None if predicate is None else Selection(prompts.matching(predicate), predicate)
    artists = load_artists() if filters.no_artists else None
    unwanted = [normalize_text(words).casefold() for words in filters.exclude]

    def accepts(text: str) -> bool:
        return artists is None or not artists.named_in(text)

    def says(phrase: str) -> bool:
        return accepts(phrase) and not any(words in phrase.casefold() for words in unwanted)

    return PassingPrompts(rows, _any_text if artists is None else accepts, says)
