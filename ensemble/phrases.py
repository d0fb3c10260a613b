"""Phrases: the parts of prompts between commas, what each is about, and which prompts hold it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.articles import with_article
from imprompt.core.values import Phrase, Role, without_edges
from imprompt.encoders.class_words import NOTHING_SEEN, SeenWords

AROUND = 100
"""How many of the nearest prompts phrases are taken from."""
LEAST_SUPPORT = 2
"""How many of them must hold a detail."""
MOST_SHARED = 8
"""How many shared phrases of one role there are at most."""
LONGEST_DETAIL = 5
"""The most words of a phrase that follows the subject."""
LONGEST_SUBJECT = 12
"""The most words of a subject; a longer one is cut where a clause begins."""

_ROLES_FILE = Path(__file__).with_name("phrase_roles.toml")
_BREAKS = re.compile(
    r"[,;|\n•·]+|(?<=[a-z\d)])[.!?]+(?:\s|$)|\s[-\u2013\u2014]\s"
    r"|(?<!ed)(?<!en)(?<!lit)\s(?=by [a-z])"
)
_CLAUSE = re.compile(
    r"\s(?:with|in|on|at|by|near|under|over|inside|behind|beside|while|wearing|holding|standing|"
    r"sitting|walking|looking|surrounded|made|that|who|which|and|from|against|between|for|as)\s"
)
_HYPHEN = re.compile(
    r"\b(award|sci|close|hyper|ultra|semi|high|low|hi|post|full|half|wide|well|ray|self|retro|neo|"
    r"photo|multi|anti|non|mid|sub|art) - (?=\w)"
)
"""Compounds that some data sets write with spaces: award - winning."""
_A_NAME = r"(?!(?:hand|night|day|candlelight|moonlight|side|the|an?|its|his|her)\b)\w"
_CREDIT = re.compile(
    rf"^(?:art )?by {_A_NAME}|"
    rf"\b(?:painted|drawn|illustrated|designed|photographed|directed|inspired) by {_A_NAME}|"
    r"\b(?:style|manner) of\b"
)
_CREDITED = re.compile(
    r"(?:^|^art |\b(?:painted|drawn|illustrated|designed|photographed|directed) )"
    rf"by (?={_A_NAME})(.+)$"
)
_FUNCTION_WORDS = frozenset(
    [
        *("a", "an", "the", "of", "in", "on", "at", "by", "with", "and", "or", "to", "for", "from"),
        *("is", "are", "be", "as", "it", "its", "his", "her", "their", "this", "that", "into"),
        *("over", "under", "very"),
    ]
)
_SIZE = re.compile(r"\d{1,2}[kd]")
"""8k, 3d."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


class ShownPrompt(Protocol):
    """A prompt of an index, or a neighbour that was found there."""

    @property
    def row_id(self) -> int: ...

    @property
    def shown(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What the prompt for one picture may be made of.

    Args:
        prompts: those around the picture, nearest first.
        captions: from the members that write any.
        words: for what an encoder sees.
        says: whether a phrase may be part of the answer.
    """

    prompts: Sequence[ShownPrompt]
    captions: Sequence[str] = ()
    words: SeenWords = NOTHING_SEEN
    says: Callable[[str], bool] = lambda _phrase: True


@dataclass(frozen=True, slots=True)
class Candidates:
    """The phrases that a prompt may be made of: one of `subjects`, then some of `details`.

    `seen` (len(subjects),) bool: the subjects that name what an encoder sees.
    """

    subjects: tuple[Phrase, ...]
    details: tuple[Phrase, ...]
    seen: NDArray[np.bool_]


def find_candidates(sources: Sources) -> Candidates:
    """Return the phrases for one picture.

    A subject is a noun that an encoder sees, or how a caption or one of the prompts begins. A
    detail is short and occurs in at least two of the prompts, after their beginning, or in a
    caption, or it is a tag.
    """
    begins: dict[str, list[int]] = {}
    holders: dict[str, list[int]] = {}
    artists: set[str] = set()
    for prompt in sources.prompts:
        parts = split(prompt.shown)
        artists |= {name for part in parts for name in credited(part)}
        for subject in subjects(parts):
            begins.setdefault(subject, []).append(prompt.row_id)
        for part in dict.fromkeys(parts[1:]):
            holders.setdefault(part, []).append(prompt.row_id)
    for word in sources.words.nouns:
        begins.setdefault(with_article(word.text), [])
    told: set[str] = set()
    for parts in map(split, sources.captions):
        for subject in subjects(parts) or parts[:1]:
            begins.setdefault(subject, [])
        told.update(parts[1:])
    for tag in sources.words.tags:
        holders[tag.text] = _holding(tag.text, sources.prompts)
        told.add(tag.text)
    firsts = [
        Phrase(text, "subject", len(row_ids), tuple(row_ids))
        for text, row_ids in begins.items()
        if sources.says(text)
    ]
    details = [
        Phrase(text, "artist" if text in artists else role(text), len(row_ids), tuple(row_ids))
        for text, row_ids in {**dict.fromkeys(sorted(told), ()), **holders}.items()
        if (len(row_ids) >= LEAST_SUPPORT or text in told)
        and len(text.split()) <= LONGEST_DETAIL
        and sources.says(text)
    ]
    nouns = [content_words(word.text) for word in sources.words.nouns]
    seen = [any(noun <= content_words(phrase.text) for noun in nouns) for phrase in firsts]
    return Candidates(tuple(firsts), tuple(details), np.array(seen, dtype=bool))


def _holding(tag: str, prompts: Sequence[ShownPrompt]) -> list[int]:
    """Return the row ids of the prompts that hold a tag anywhere."""
    return [
        prompt.row_id for prompt in prompts if f" {tag} " in f" {' '.join(words(prompt.shown))} "
    ]


def shared_phrases(candidates: Candidates) -> tuple[Phrase, ...]:
    """Return the phrases to choose from: up to `MOST_SHARED` of each role, the commonest first.

    The roles are in the order of `Role`. A detail is in at least two of the prompts. Subjects are
    rarely shared, so half of their role are the beginnings of the nearest prompts.
    """
    begins = [phrase for phrase in candidates.subjects if phrase.support]
    details = [phrase for phrase in candidates.details if phrase.support >= LEAST_SUPPORT]
    details.sort(key=lambda phrase: -phrase.support)
    chosen: dict[Role, list[Phrase]] = {role: [] for role in get_args(Role)}
    for phrases, most in ((begins, MOST_SHARED // 2), (details, MOST_SHARED)):
        for phrase in phrases:
            others = chosen[phrase.role]
            twins = [at for at, other in enumerate(others) if _says_the_same(phrase, other)]
            if not twins and len(others) < most:
                others.append(phrase)
            elif twins and phrase.support > others[twins[0]].support:
                others[twins[0]] = phrase
    return tuple(phrase for phrases in chosen.values() for phrase in phrases)


def _says_the_same(phrase: Phrase, other: Phrase) -> bool:
    """Return whether the one has all the words of the other that carry meaning."""
    new, said = content_words(phrase.text), content_words(other.text)
    return new <= said or said <= new


def split(text: str) -> list[str]:
    """Return the phrases of a prompt in order, in lower case, without those that hold no word.

    Args:
        text: normalized, see `imprompt.indexer.normalization.normalize`.
    """
    text = _HYPHEN.sub(r"\1-", text.casefold())
    parts = (without_edges(" ".join(part.split())) for part in _BREAKS.split(text))
    return [part for part in parts if _is_said(part)]


def subjects(phrases: Sequence[str]) -> list[str]:
    """Return what may be the subject of a prompt: its first phrase, and that up to a clause."""
    if not phrases:
        return []
    first = phrases[0]
    found = [first] if len(words(first)) <= LONGEST_SUBJECT else []
    for match in _CLAUSE.finditer(first):
        beginning = first[: match.start()]
        n = len(words(beginning))
        if n >= 2 and not beginning.endswith((" of", " a", " an", " the")):
            return [*found, beginning] if n <= LONGEST_SUBJECT else found
    return found


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.casefold())


def credited(phrase: str) -> list[str]:
    """Return the names that a phrase credits: "by NAME and NAME"."""
    match = _CREDITED.search(phrase)
    return [] if match is None else [name.strip() for name in match[1].split(" and ")]


def role(phrase: str) -> Role:
    """Return what a phrase is about, by the words in it; "subject" if none of them tells."""
    if _CREDIT.search(phrase):
        return "artist"
    if content_words(phrase) and content_words(phrase) <= _colours():
        return "colour"
    said = f" {' '.join(words(phrase))} "
    for name, terms in _terms():
        if any(term in said for term in terms):
            return name
    return "subject"


@cache
def _terms() -> tuple[tuple[Role, tuple[str, ...]], ...]:
    """Return (role, terms) in the order that they are looked for: first terms of several words."""
    roles = _vocabulary().roles.items()
    several = [(name, tuple(f" {term} " for term in terms if " " in term)) for name, terms in roles]
    single = [
        (name, tuple(f" {term} " for term in terms if " " not in term)) for name, terms in roles
    ]
    return (*several, *single)


@cache
def _colours() -> frozenset[str]:
    return frozenset(_vocabulary().colours)


@cache
def _contradictions() -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    pairs = _vocabulary().contradictions
    return tuple((frozenset(first), frozenset(second)) for first, second in pairs)


@cache
def _vocabulary() -> _Vocabulary:
    return msgspec.toml.decode(_ROLES_FILE.read_bytes(), type=_Vocabulary)


class _Vocabulary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `phrase_roles.toml`."""

    colours: list[str]
    contradictions: list[tuple[list[str], list[str]]]
    roles: dict[Role, list[str]]


def _is_said(part: str) -> bool:
    letters = sum(char.isalpha() for char in part)
    return (letters >= 2 and letters >= len(part) / 2) or _SIZE.fullmatch(part) is not None


def content_words(text: str) -> frozenset[str]:
    """Return the words of a text that carry meaning, in the singular where that is plain."""
    return frozenset(_singular(word) for word in words(text) if word not in _FUNCTION_WORDS)


def repeats(said: frozenset[str], phrase: str) -> bool:
    """Return whether at least half of a phrase's content words have been said already."""
    new = content_words(phrase)
    return len(new & said) * 2 >= len(new)


def contradicts(said: frozenset[str], phrase: str) -> bool:
    """Return whether a phrase says the opposite of what was said: a photo, and a painting."""
    new = frozenset(words(phrase))
    return any(
        (said & first and new & second) or (said & second and new & first)
        for first, second in _contradictions()
    )


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith("ss"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses", "zzes")) else word[:-1]
