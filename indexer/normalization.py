"""Normalize a prompt for the encoder: no web addresses, no tool syntax, even spacing.

The original text is stored as well and shown. Every pattern takes time linear in the length of the
text, since prompts come from strangers.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TypeAlias

from imprompt.core.values import normalize_text

_ROUNDS = 8

_FLAGS_WITH_TEXT = "style|preset|sref|cref|profile|p|sampler|model"
_FLAGS = (
    "ar|aspect|v|version|q|quality|s|stylize|c|chaos|seed|sameseed|stop|iw|w|width|h|height|niji|"
    "tile|test|testp|mp|creative|upbeta|uplight|upanime|upscale|hd|video|fast|relax|turbo|raw|"
    "draft|repeat|r|weird|wallpaper|vibe|sw|cw|ow|exp|beta|steps|step|cfg|scale|n|grid|u|i"
)
_DASHES = ("--", "\u2014", "\u2013")  # two hyphens, which many editors turn into a dash
_FLAG = r"(?<![^\s,.;])(?:--|\u2014|\u2013)"

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"

_Rule: TypeAlias = tuple[tuple[str, ...], re.Pattern[str], str]

_STEERING: tuple[_Rule, ...] = (
    # Web addresses.
    (("://", "www."), re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE), " "),
    # AUTOMATIC1111's networks: <lora:name:0.8>, <hypernet:name:1>.
    (("<",), re.compile(r"<[A-Za-z][A-Za-z0-9_]{0,30}:[^<>]{0,300}>"), " "),
    # Midjourney's --no: what must not be in the image, up to the next flag.
    (_DASHES, re.compile(_FLAG + r"no(?!\S)(?:(?!--|\u2014|\u2013).){0,500}", re.IGNORECASE), " "),
    (
        _DASHES,
        re.compile(
            _FLAG + rf"(?:{_FLAGS_WITH_TEXT})(?![^\s=])(?:[ =][^\s,-][^\s,]*)?", re.IGNORECASE
        ),
        " ",
    ),
    (
        _DASHES,
        re.compile(
            _FLAG + rf"(?:{_FLAGS})(?![^\s=,.\d])(?:[ =]?[\d.:/x]+)?(?![^\s,.])", re.IGNORECASE
        ),
        " ",
    ),
    # Midjourney's parts and their weights: cat::2 dog::-.5
    (("::",), re.compile(rf"::\s?(?:{_NUMBER}(?![^\s,:]))?"), ", "),
    # AUTOMATIC1111's emphasis: (word:1.2), ((word)), [word], {word}; its BREAK.
    ((")", "]", "}"), re.compile(rf"(?::\s?{_NUMBER}\s?)?\\?[)\]}}]"), " "),
    (("(", "[", "{"), re.compile(r"\\?[(\[{]"), " "),
    (("BREAK",), re.compile(r"\bBREAK\b"), ", "),
)
_SPELLING: tuple[_Rule, ...] = (
    # 8 k, and 1 6 k from those who split digits.
    (
        (" k", " K"),
        re.compile(r"(?<![\w.,])(?<!\d )([248]|1 ?6|3 ?2|6 ?4) k\b", re.IGNORECASE),
        r"\1k",
    ),
    (
        ("6k", "2k", "4k", "6K", "2K", "4K"),
        re.compile(r"(?<![\w.,])(?<!\d )([136]) ([246]k)\b", re.IGNORECASE),
        r"\1\2",
    ),
    # Doubled punctuation, and the space before it.
    ((" ,", " .", " ;", " :", " !", " ?"), re.compile(r" ([,;:!?.])(?=[ ,;:!?.]|$)"), r"\1"),
    ((), re.compile(r"([,;:!?.|])(?: ?\1)+"), r"\1"),
)


def normalize(text: str) -> str:
    """Return the text to embed; empty if there was nothing but flags.

    Removed are web addresses, Midjourney's `--flags` (`--no` with all that follows it), weights
    `::2` and `(word:1.2)`, brackets, `<lora:…>`, repeated punctuation; `8 k` becomes `8k`. The rest
    is in Unicode NFC with single spaces. Normalizing twice changes nothing.
    """
    text = normalize_text(text)
    for _ in range(_ROUNDS):  # removing one construct may complete another
        before = text
        steered = _applied(_STEERING, text)
        spelled = _applied(_SPELLING, steered if steered is text else normalize_text(steered))
        text = normalize_text(spelled.strip(" ,;:|"))
        if text == before:
            break
    has_words = any(not unicodedata.category(char).startswith(("P", "Z", "C")) for char in text)
    return text if has_words else ""


def _applied(rules: tuple[_Rule, ...], text: str) -> str:
    """Apply the rules of which a needle occurs.

    Most prompts have none, and looking for a needle is a hundred times faster than the pattern.
    """
    for needles, pattern, replacement in rules:
        if not needles or any(needle in text for needle in needles):
            text = pattern.sub(replacement, text)
    return text
