"""Values that every room relies on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from imprompt.core.errors import EncoderError
from imprompt.core.values import Prompt, normalize_text, prompt_key, unit_rows, without_edges


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.integers(1, 8)),
        elements=st.floats(-1e3, 1e3, width=32),
    )
)
def test_unit_rows_have_length_one_and_keep_their_direction(array: np.ndarray) -> None:
    """Every row that is not zero comes out with length 1, float32, and points the same way."""
    rows = unit_rows(array)
    assert rows.dtype == np.float32
    assert rows.shape == array.shape
    for before, after in zip(array, rows, strict=True):
        length = np.linalg.norm(before)
        if length > 1e-6:
            assert np.allclose(after * length, before, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_unit_rows_name_whose_numbers_are_not_finite(bad: float) -> None:
    """NaN and infinity never become vectors; the message says whose they are, and what to try."""
    with pytest.raises(
        EncoderError, match=r"^the text tower returns values that are not finite\. .*--device cpu"
    ):
        unit_rows(np.array([[1, 0], [bad, 1]]), role="the text tower")


def test_unit_rows_refuse_what_is_not_a_matrix() -> None:
    """A wrong rank is a mistake of the caller."""
    with pytest.raises(ValueError, match="vectors"):
        unit_rows(np.zeros(3))


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    """The folded form is stable, so a key never depends on how often a prompt was cleaned."""
    assert normalize_text(normalize_text(text)) == normalize_text(text)


def test_prompts_that_differ_in_white_space_and_composition_share_a_key() -> None:
    """NFC and white space do not make another prompt; a letter does."""
    assert prompt_key("  caf\u00e9 \n at  night") == prompt_key("cafe\u0301 at night")
    assert prompt_key("cafe at night") != prompt_key("caf\u00e9 at night")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a fox", "a fox"),
        (' "a fox," ', "a fox"),
        ("--- (a fox) 🦊!", "a fox"),
        ("l'été: a fox's den", "l'été: a fox's den"),
        ("...", ""),
        ("", ""),
    ],
)
def test_edges_are_spaces_punctuation_and_symbols(text: str, kept: str) -> None:
    """At both ends alone."""
    assert without_edges(text) == kept


@given(st.text())
def test_without_edges_a_text_stays_as_it_is(text: str) -> None:
    """Nothing is left to take away, and what is left was in it."""
    kept = without_edges(text)
    assert kept in text
    assert without_edges(kept) == kept


def test_what_is_shown_of_a_prompt_is_what_the_encoder_read() -> None:
    """Without its edges; where nothing would be left, the prompt as it was typed."""

    def shown(text: str, read: str) -> str:
        return Prompt(0, prompt_key(text), text, read, "p.txt", "1", 1, 0).shown

    assert shown("(a fox:1.2), --ar 3:2", "a fox,") == "a fox"
    assert shown("!!!", "!!!") == "!!!"
