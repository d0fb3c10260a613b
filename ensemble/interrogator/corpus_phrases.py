"""Phrase lists mined from the user's own index: the words that its prompts add to their subjects, without names of artists."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import MemberUnavailable, StorageFull
from imprompt.core.hub.fetch import Announce
from imprompt.core.settings import settings
from imprompt.retriever.artists import Artists

if TYPE_CHECKING:
    from imprompt.store.open_index import OpenIndex

MOST_PHRASES = 20_000
"""Phrases of a mined list; in 1.9 million real prompts those that were submitted about 60 times or more."""

_COUNTED = 30_000
"""Phrases that are looked at; in real prompts a sixth of them names an artist."""
_METHOD = 1
"""To be raised with any change of what is mined, so that no list of an older version is read."""
_CREDIT = re.compile(r"\b(?:by|style of|manner of)\b")
_NAMED = re.compile(r"\bby (\S+ \S.*)")


class _Mined(msgspec.Struct, frozen=True):
    phrases: list[str]
    sha256: str


def corpus_phrases(
    version: OpenIndex, artists: Sequence[str], *, announce: Announce
) -> tuple[str, ...]:
    """The phrases of a version's prompts, the most submitted first; mined once for equal rows and artists, then kept.

    Args:
        artists: names; phrases that hold one are left out, as are those that credit anybody ("by",
            "style of").

    Raises:
        MemberUnavailable: the prompts have no phrase in common.
        StoreError: they cannot be read.
    """
    identity = [_METHOD, MOST_PHRASES, version.manifest.rows_digest, list(artists)]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    path = _mined_folder() / f"{key}.json"
    if (phrases := _kept(path)) is None:
        announce(
            f"Mining the phrases of {version.manifest.rows:,} prompts for the interrogator, once for this index."
        )
        counted = version.prompts.frequent_phrases(_COUNTED)
        phrases = without_artists(counted, artists)[:MOST_PHRASES]
        with suppress(StorageFull, OSError), atomic_write(path) as file:
            file.write(msgspec.json.encode(_Mined(phrases, _digest(phrases))))
    if not phrases:
        raise MemberUnavailable(
            "interrogator",
            f"the {version.manifest.rows:,} prompts of the index have no phrases in common",
            hint="Use --phrases package.",
        )
    return tuple(phrases)


def forget_mined_phrases() -> int:
    """Remove all kept lists, which may hold words of prompts that were removed; how many there were. They are mined again."""
    files = list(_mined_folder().glob("*.json"))
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _mined_folder() -> Path:
    return settings().cache / "phrases" / "mined"


def without_artists(counted: Sequence[tuple[str, int]], artists: Sequence[str]) -> list[str]:
    """The phrases that credit nobody and name no artist, in their order.

    Artists are those of the list, and whoever is credited by full name in another phrase a tenth as
    often as named alone.

    Args:
        counted: phrases in lower case, with how often each was submitted.
    """
    known = Artists(artists)
    credited: Counter[str] = Counter()
    for phrase, n in counted:
        if match := _NAMED.search(phrase):
            credited[match[1]] += n
    return [
        phrase
        for phrase, n in counted
        if not _CREDIT.search(phrase)
        and credited[phrase] * 10 < n
        # The list takes a single word for a name behind "by" only; between commas ("artgerm") it is
        # a credit, too.
        and not any(known.named_in(f"by {words}") for words in (phrase, *phrase.split()))
    ]


def _kept(path: Path) -> list[str] | None:
    try:
        mined = msgspec.json.decode(path.read_bytes(), type=_Mined)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return mined.phrases if mined.sha256 == _digest(mined.phrases) else None


def _digest(phrases: list[str]) -> str:
    return hashlib.sha256("\n".join(phrases).encode()).hexdigest()
