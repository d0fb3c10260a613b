"""Phrases mined from the prompts of the index: what they add to their subjects, without artists."""

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
"""Phrases in a mined list; in 1.9 million real prompts, those submitted about 60 times or more."""

_CANDIDATES = 30_000
"""Frequent phrases to mine from; in real prompts a sixth of them names an artist."""
_METHOD = 1
"""Raise it with any change of what is mined, so that lists of older versions are not read."""
_CREDIT = re.compile(r"\b(?:by|style of|manner of)\b")
_NAMED = re.compile(r"\bby (\S+ \S.*)")


class _MinedPhrases(msgspec.Struct, frozen=True):
    phrases: list[str]
    sha256: str


def corpus_phrases(
    version: OpenIndex, artists: Sequence[str], *, announce: Announce
) -> tuple[str, ...]:
    """Return the phrases of a version's prompts, the most submitted first.

    They are mined once for equal rows and artists, then cached.

    Args:
        artists: names; phrases that contain one are left out, as are those that credit anyone
            ("by", "style of").

    Raises:
        MemberUnavailable: the prompts have no phrase in common.
        StoreError: they cannot be read.
    """
    rows = version.manifest.rows
    identity = [_METHOD, MOST_PHRASES, version.manifest.rows_digest, list(artists)]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    path = _cache_folder() / f"{key}.json"
    if (phrases := _read(path)) is None:
        announce(f"Mining phrases from {rows:,} prompts for the interrogator, once for this index.")
        frequent = version.prompts.frequent_phrases(_CANDIDATES)
        phrases = without_artists(frequent, artists)[:MOST_PHRASES]
        with suppress(StorageFull, OSError), atomic_write(path) as file:
            file.write(msgspec.json.encode(_MinedPhrases(phrases, _digest(phrases))))
    if not phrases:
        raise MemberUnavailable(
            "interrogator",
            f"the {rows:,} prompts of the index have no phrases in common",
            hint="Use --phrases package.",
        )
    return tuple(phrases)


def forget_mined_phrases() -> int:
    """Remove all cached lists, which may hold words of removed prompts; return their number."""
    files = list(_cache_folder().glob("*.json"))
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _cache_folder() -> Path:
    return settings().cache / "phrases" / "mined"


def without_artists(counts: Sequence[tuple[str, int]], artists: Sequence[str]) -> list[str]:
    """Return the phrases that credit nobody and name no artist, in order.

    An artist is a name of the list, or one that another phrase credits ("by NAME") at least a tenth
    as often as it occurs alone.

    Args:
        counts: phrases in lower case, with the number of submissions of each.
    """
    known = Artists(artists)
    credits_of: Counter[str] = Counter()
    for phrase, n in counts:
        if match := _NAMED.search(phrase):
            credits_of[match[1]] += n
    return [
        phrase
        for phrase, n in counts
        if not _CREDIT.search(phrase)
        and credits_of[phrase] * 10 < n
        # The list takes a single word for a name after "by" only; between commas ("artgerm") it is
        # a credit, too.
        and not any(known.named_in(f"by {words}") for words in (phrase, *phrase.split()))
    ]


def _read(path: Path) -> list[str] | None:
    try:
        mined = msgspec.json.decode(path.read_bytes(), type=_MinedPhrases)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return mined.phrases if mined.sha256 == _digest(mined.phrases) else None


def _digest(phrases: list[str]) -> str:
    return hashlib.sha256("\n".join(phrases).encode()).hexdigest()
