"""What each rule leaves out, and that it leaves out nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError
from imprompt.core.values import RawPrompt, prompt_key
from imprompt.indexer.cleaning_rules import (
    E_MAIL,
    HANDLE,
    PHONE,
    Cleaning,
    Rules,
    UnsafeWords,
    contact,
    read_unsafe_words,
    resolve_cleaning,
)
from imprompt.indexer.normalization import normalize

WORDS = UnsafeWords(frozenset({"forbidden"}), ("two words",))
OFF = Cleaning(contacts=False, unsafe=False)


def count_words(texts: Sequence[str]) -> NDArray[np.int64]:
    return np.array([len(text.split()) + 2 for text in texts], dtype=np.int64)


def left_out(text: str, cleaning: Cleaning, *, nsfw: float | None = None) -> str | None:
    """The rule that leaves the prompt out, None where it is kept."""
    kept, dropped = Rules(resolve_cleaning(cleaning, WORDS), WORDS, count_words).apply(
        [RawPrompt(text, "corpus", "row 0", 3, nsfw)]
    )
    assert len(kept) + len(dropped) == 1
    return dropped[0].rule if dropped else None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("portrait, write to jane.doe+art@mail.example.org", E_MAIL),
        ("art by jane @ mail . com", E_MAIL),
        ("in the style of @some_artist, oil", HANDLE),
        ("call +49 170 1234567 now", PHONE),
        ("call (555) 123-4567", PHONE),
        ("555-123-4567 pizza", PHONE),
        ("photo @ 85mm f/1.8", None),
        ("1920 1080 3000, 1899-1945", None),
        ("16:9, 4k, 2022-11-03, 100.000.000", None),
        ("a cat @ night", None),
        ("+1 +2 +3", None),
    ],
)
def test_contacts(text: str, found: str | None) -> None:
    """Contacts are found by default; lenses, years, resolutions and dates are not contacts."""
    assert contact(text) == found
    assert left_out(text, Cleaning()) == found
    assert left_out(text, OFF) is None


@pytest.mark.parametrize(
    "piece", ["@", "a@", "a@b", "@a", "+1 ", "1", "123 ", "(123) ", "a.", "1-"]
)
def test_no_text_takes_long(piece: str) -> None:
    """The longest prompt that is read takes less than a second, whatever is repeated in it."""
    began = time.process_time()
    contact(piece * (100_000 // len(piece)))
    assert time.process_time() - began < 1


def test_unsafe() -> None:
    """The corpus's score decides if there is one; else words and phrases of the list do."""
    assert left_out("a Forbidden thing", Cleaning()) == "unsafe"
    assert left_out("Two  (words:1.2)", Cleaning()) == "unsafe"
    assert left_out("forbiddenness of two other words", Cleaning()) is None
    assert left_out("a forbidden thing", Cleaning(), nsfw=0.1) is None
    assert left_out("a flower", Cleaning(), nsfw=0.5) == "unsafe"
    assert left_out("a flower", Cleaning(nsfw_limit=0.9), nsfw=0.5) is None
    assert left_out("a forbidden thing", OFF, nsfw=1.0) is None


def test_lengths() -> None:
    """Word limits count the embedded text, token limits the encoder's tokens; both inclusive."""
    assert left_out("a b c", Cleaning(min_words=3, max_words=3)) is None
    assert left_out("a b --ar 2:3", Cleaning(min_words=3)) == "too few words"
    assert left_out("a b c d", Cleaning(max_words=3)) == "too many words"
    assert left_out("a b c", Cleaning(min_tokens=5, max_tokens=5)) is None
    assert left_out("a b", Cleaning(min_tokens=5)) == "too few tokens"
    assert left_out("a b c d", Cleaning(max_tokens=5)) == "too many tokens"
    assert left_out("一只猫", Cleaning(min_words=3)) is None


def test_languages() -> None:
    """Other languages than those named are left out; several may be named."""
    german, english = (
        "ein Porträt einer alten Frau im Regen",
        "a portrait of an old woman in the rain",
    )
    assert left_out(german, Cleaning(languages=("en",))) == "other language"
    assert left_out(english, Cleaning(languages=("en",))) is None
    assert left_out(german, Cleaning(languages=("en", "de"))) is None
    assert left_out(german, Cleaning()) is None


def test_nothing_but_flags() -> None:
    """A prompt of which nothing is left to embed is left out, whatever the settings."""
    assert left_out("--ar 16:9 --v 5", OFF) == "nothing but flags"


@given(st.lists(st.text(min_size=1, max_size=40), max_size=6), st.booleans())
def test_every_prompt_is_kept_or_left_out(texts: list[str], strict: bool) -> None:
    """Each is kept or dropped by itself, in order; the key is that of the embedded text."""
    cleaning = Cleaning(min_words=2, max_tokens=6) if strict else Cleaning()
    rules = Rules(resolve_cleaning(cleaning, WORDS), WORDS, count_words)
    prompts = [RawPrompt(text, "corpus", f"row {i}", i + 1) for i, text in enumerate(texts)]
    kept, dropped = rules.apply(prompts)
    ways = [row.source_key for row in kept] + [row.source_key for row in dropped]
    assert sorted(ways) == [prompt.source_key for prompt in prompts]
    alone = [rules.apply([prompt]) for prompt in prompts]
    assert ([row for one, _ in alone for row in one], [row for _, one in alone for row in one]) == (
        kept,
        dropped,
    )
    for row in kept:
        raw = prompts[int(row.source_key[4:])]
        assert (row.text, row.n_submitted) == (raw.text, raw.n_submitted)
        assert row.embedded_text == normalize(raw.text)
        assert row.prompt_key == prompt_key(row.embedded_text)


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            Cleaning(min_words=5, max_words=4),
            Cleaning(min_tokens=-1),
            Cleaning(near_duplicates=0.5),
            Cleaning(near_duplicates=1.1),
            Cleaning(nsfw_limit=2),
            Cleaning(languages=("English",)),
        ],
    )
    def test_senseless_ones_are_refused(self, wrong: Cleaning) -> None:
        """Limits out of range are refused before anything is read."""
        with pytest.raises(ConfigError):
            resolve_cleaning(wrong, WORDS)

    def test_the_list_counts_only_where_it_is_used(self) -> None:
        """The plan holds the list's hash, in any order, unless unsafe prompts are kept."""
        other = UnsafeWords(frozenset({"b"}), ())
        assert resolve_cleaning(Cleaning(), WORDS) != resolve_cleaning(Cleaning(), other)
        assert resolve_cleaning(OFF, WORDS) == resolve_cleaning(OFF, other) == OFF
        assert resolve_cleaning(Cleaning(languages=("en", "de", "en")), WORDS).languages == (
            "de",
            "en",
        )
        assert msgspec.json.decode(
            msgspec.json.encode(resolve_cleaning(Cleaning(), WORDS)), type=Cleaning
        ) == resolve_cleaning(Cleaning(), WORDS)

    def test_own_words(self, tmp_path: Path) -> None:
        """A word or phrase a line, with comments; empty or unreadable files are refused by name."""
        path = tmp_path / "words.txt"
        path.write_text("# mine\nFoo\n\nbar-baz  qux\nfoo\n")
        assert read_unsafe_words(path) == UnsafeWords(frozenset({"foo"}), ("bar baz qux",))
        for content in (b"# nothing\n", b"\xff\xfe"):
            path.write_bytes(content)
            with pytest.raises(ConfigError, match=r"words\.txt"):
                read_unsafe_words(path)
        with pytest.raises(ConfigError, match="absent"):
            read_unsafe_words(tmp_path / "absent")

    def test_the_list_that_comes_along(self) -> None:
        """It is sorted, has no word twice, and leaves figures of art and anatomy alone."""
        words = read_unsafe_words()
        assert words.found_in("NSFW, a couple")
        assert not words.found_in(
            "a nude by Modigliani, breast, cocktail, chest, sexy pose, a cockatoo"
        )
