"""Does a prompt name an artist? By the list of names that the package clip-interrogator carries."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from imprompt.core.errors import ConfigError

PACKAGE = "clip_interrogator"
FILE = "data/artists.txt"

_WORD = re.compile(r"\w+|[,;:|()\[\]{}]")
_INTRODUCTIONS = (("by",), ("style", "of"))


class Artists:
    """A list of artists' names, of which a prompt may name one.

    A name of several words counts wherever it stands, one of a single word (Constant, Raphael) only
    behind "by" or "style of". Case and accents do not count, and no name goes across a comma.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_first: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name in names:
            words = tuple(word for word in _words(name) if word.isalnum())
            if words:
                self._by_first[words[0]].add(words)

    def named_in(self, text: str) -> bool:
        """Whether the text names one of them."""
        words = _words(text)
        for place, word in enumerate(words):
            for name in self._by_first.get(word, ()):
                if words[place : place + len(name)] == name and (
                    len(name) > 1 or _introduced(words[:place])
                ):
                    return True
        return False


def load_artists() -> Artists:
    """The list of the package clip-interrogator, which is read as a file: importing the package would load its models' libraries.

    Raises:
        ConfigError: the package is not installed, or lacks the list.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / FILE
        if path.is_file():
            return Artists(path.read_text("utf-8").splitlines())
    raise ConfigError(
        "There is no list of artists to leave out: it comes with the package clip-interrogator, which is not installed.",
        hint="pip install --no-deps clip-interrogator",
    )


def _words(text: str) -> tuple[str, ...]:
    """Words without case and accents, and the marks that part names."""
    plain = "".join(
        char
        for char in unicodedata.normalize("NFKD", text.casefold())
        if not unicodedata.combining(char)
    )
    return tuple(_WORD.findall(plain.replace("_", " ")))


def _introduced(before: tuple[str, ...]) -> bool:
    return any(before[-len(words) :] == words for words in _INTRODUCTIONS)
