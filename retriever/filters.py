"""Which prompts may be answered: filters over the columns and words of the store, and prompts that name no artist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from imprompt.core.errors import FilterRejected
from imprompt.core.protocols import PromptStore
from imprompt.core.values import Condition, Ids
from imprompt.retriever.artists import load_artists
from imprompt.store.conditions import holds_words, where

MAX_WORDS = 20
"""How many `contains` and how many `exclude` there may be."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a prompt must be to be answered; without arguments, all are.

    Args:
        where: a condition on the columns of the store; see `imprompt.store.conditions.where`.
        contains: words that each must be in the prompt as they stand, whatever their case.
        exclude: words of which none may be in it.
        no_artists: prompts that name an artist are left out; see
            `imprompt.retriever.artists.Artists`.

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
                    f"There are {len(words)} texts to {name}; at most {MAX_WORDS} are taken."
                )
        self.condition()

    def __bool__(self) -> bool:
        return bool(self.to_json())

    def __str__(self) -> str:
        """What a person reads of them, in the words of the command line."""
        parts = [] if self.where is None else [f"where {self.where}"]
        parts += [f"contains {words!r}" for words in self.contains] + [
            f"without {words!r}" for words in self.exclude
        ]
        return ", ".join([*parts, *(["no artists"] if self.no_artists else [])])

    def condition(self) -> Condition | None:
        """What the store can tell of them; None where that is nothing."""
        parts = [] if self.where is None else [where(self.where)]
        parts += [holds_words(words) for words in self.contains] + [
            ~holds_words(words) for words in self.exclude
        ]
        return reduce(and_, parts) if parts else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: only the filters that were used."""
        parts = {
            "where": self.where,
            "contains": self.contains,
            "exclude": self.exclude,
            "no_artists": self.no_artists,
        }
        return {name: part for name, part in parts.items() if part}


ALL = Filters()


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters, looked up in one version.

    `allowed` are the row ids that may be answered, rising, None for all; of those, only prompts
    whose text is accepted are.
    """

    allowed: Ids | None = None
    accepts: Callable[[str], bool] = lambda _text: True


def select(filters: Filters, prompts: PromptStore) -> Selection:
    """The rows of a version that pass the filters.

    Raises:
        ConfigError: there is no list of artists.
        StoreError: the prompts cannot be read.
    """
    condition = filters.condition()
    allowed = None if condition is None else prompts.matching(condition)
    if not filters.no_artists:
        return Selection(allowed)
    artists = load_artists()
    return Selection(allowed, lambda text: not artists.named_in(text))
