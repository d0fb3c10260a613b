"""The text that is embedded: what steers a tool is gone, the rest stays, and no text takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprompt.core.values import normalize_text
from imprompt.indexer.normalization import normalize

SIGNS = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "<a:",
    ">",
    "::",
    ":",
    "1",
    ".5",
    "8",
    "--",
    "ar",
    "no",
    "s",
    "16:9",
    "—",
    "http://",
    "www.",
    "x",
    "BREAK",
    "\\",
    ",",
    ".",
    "|",
    "!",
    "é",
    "=",
    "-",
    "@",
    "油",
    "\u3000",
]
PIECES = st.sampled_from([*SIGNS, " ", " k", "K", "1 6 k"])


@pytest.mark.parametrize(
    ("typed", "embedded"),
    [
        ("a cat --ar 16:9 --v 5", "a cat"),
        ("a cat --no dogs, rain --s 750", "a cat"),
        ("a cat \u2014ar 3:2, oil --style raw", "a cat, oil"),
        ("--test a castle --seed=42 --hd", "a castle"),
        ("hot:: dog::2 cat::-.5", "hot, dog, cat"),
        ("<lora:some_style:0.8> 1girl, <hypernet:x:1>", "1girl"),
        (
            "(masterpiece:1.2), ((best quality)), [[blurry]], {soft}",
            "masterpiece, best quality, blurry, soft",
        ),
        ("Saber \\(fate\\), night", "Saber fate, night"),
        ("photo, 8 k, 1 6 k, 4 K", "photo, 8k, 16k, 4k"),
        ("a fox ,, in snow . . .  http://a.b/c.png", "a fox, in snow."),
        ("best quality BREAK a city", "best quality, a city"),
        ("--ar 2:3", ""),
        ("!!!", ""),
    ],
)
def test_what_is_taken_out(typed: str, embedded: str) -> None:
    """Flags, weights, networks, addresses and doubled signs go; split resolutions are joined."""
    assert normalize(typed) == embedded


@pytest.mark.parametrize(
    "text",
    [
        "a man -- smiling",
        "a ratio of 16:9",
        "a dog --running",
        "at 12:30",
        "f / 1. 8",
        "🎨",
        "一只猫在月球上",
        "AND a break",
        "1 2 8 k",
    ],
)
def test_what_stays(text: str) -> None:
    """Dashes, times, ratios, words that look like flags, and every script stay."""
    assert normalize(text) == text


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=40))
def test_is_idempotent(text: str) -> None:
    """Normalizing twice changes nothing; the result is normalized Unicode."""
    once = normalize(text)
    assert normalize(once) == once == normalize_text(once)


@given(
    st.lists(
        st.text(st.characters(categories=["L"]), min_size=1, max_size=8), min_size=1, max_size=8
    )
)
def test_words_are_never_lost(words: list[str]) -> None:
    """A text of nothing but words is only normalized as Unicode."""
    text = " ".join(words)
    if "BREAK" not in text:
        assert normalize(text) == normalize_text(text)


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "()",
        "((a:1):1",
        ":",
        "<a:",
        "--no ",
        " ,",
        "a,;",
        ". ",
        "1 ",
        "http://",
        "\u2014",
        "\u3000",
        "e\u0301",
        "a:1)",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    """The longest prompt, of any repeated piece, takes less than a second."""
    began = time.process_time()
    normalize("a" + piece * (100_000 // len(piece)) + "a")
    assert time.process_time() - began < 1
