"""Detects artists' names in prompts, with the list of the package clip-interrogator."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from imprompt.core.errors import ConfigError
from imprompt.core.pip_lines import pip_install

PACKAGE = "clip_interrogator"
FILE = "data/artists.txt"

_WORD = re.compile(r"\w+|[,;:|()\[\]{}]")
_INTRODUCTIONS = (("by",), ("style", "of"))


class Artists:
    """A list of artists' names.

    A name of several words is found anywhere in a text, a single word (Constant, Raphael) only
    after "by" or "style of". Case and accents are ignored, and no name extends across a comma.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_first: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name in names:
            words = tuple(word for word in _words(name) if word.isalnum())
            if words:
                self._by_first[words[0]].add(words)

    def named_in(self, text: str) -> bool:
        """Return whether the text names one of the artists."""
        words = _words(text)
        for start, word in enumerate(words):
            for name in self._by_first.get(word, ()):
                matches = words[start : start + len(name)] == name
                if matches and (len(name) > 1 or _is_introduced(words[:start])):
                    return True
        return False


def load_artists() -> Artists:
    """Return the artists listed in the package clip-interrogator.

    The list is read as a file, because importing the package would load its models' libraries.

    Raises:
        ConfigError: the package is not installed, or lacks the list.
    """
    if (path := _list_file()) is not None:
        return Artists(path.read_text("utf-8").splitlines())
    raise ConfigError(
        "The list of artists is missing: it comes with the package clip-interrogator, which is "
        "not installed.",
        hint=pip_install("--no-deps clip-interrogator"),
    )


def artists_listed() -> bool:
    """Return whether the list of artists is installed."""
    return _list_file() is not None


def _list_file() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders if (path := Path(folder) / FILE).is_file()), None)


def _words(text: str) -> tuple[str, ...]:
    """Return the words without case and accents, and the punctuation that separates names."""
    plain = "".join(
        char
        for char in unicodedata.normalize("NFKD", text.casefold())
        if not unicodedata.combining(char)
    )
    return tuple(_WORD.findall(plain.replace("_", " ")))


def _is_introduced(before: tuple[str, ...]) -> bool:
    return any(before[-len(words) :] == words for words in _INTRODUCTIONS)
