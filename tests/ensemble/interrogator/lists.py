"""Short phrase lists for tests: those of the package would take minutes to encode."""

from __future__ import annotations

from imprompt.ensemble.interrogator.phrase_lists import PhraseLists, package_lists

COLOURS = PhraseLists(
    mediums=("a red painting", "a green drawing", "a blue photo"),
    movements=("red art", "green art", "blue art"),
    flavors=("red", "green", "blue", "red and green", "blue and green", "deep blue", "unred"),
    artists=("greg green",),
    negative=("blur",),
)
"""For the index of colours."""


def short_lists(flavors: int) -> PhraseLists:
    """The package's mediums, movements and first flavors."""
    lists = package_lists()
    return PhraseLists(
        lists.mediums, lists.movements, lists.flavors[:flavors], lists.artists[:50], lists.negative
    )
