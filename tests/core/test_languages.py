"""The language of a text is guessed; English, and what cannot be told, is the empty text."""

from __future__ import annotations

import pytest

from imprompt.core import languages
from imprompt.core.languages import other_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("ein Leuchtturm", "German"),
        ("un phare au crépuscule", "French"),
        ("UN FARO AL ATARDECER", "Spanish"),
        ("灯台 夕暮れ", "Japanese"),
        ("маяк на закате", "Russian"),
        ("a lighthouse at dusk,\noil on canvas", ""),
        ("1girl, solo, masterpiece", ""),
        ("castle portrait greg rutkowski", ""),
        ("fox", ""),
        ("\n \0", ""),
        ("", ""),
    ],
)
def test_it_is_told(text: str, language: str) -> None:
    """Capital letters and line breaks change nothing."""
    assert other_language(text) == language


def test_a_rare_one_has_its_code() -> None:
    """Not every language has a name here."""
    assert other_language("goleudy gyda'r nos, paentiad olew") == "the language 'cy'"


def test_without_the_package_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything said to be missing: it is a hint."""
    monkeypatch.setattr(languages, "_PACKAGE", "no_such_package")
    languages._model.cache_clear()
    try:
        assert other_language("ein Leuchtturm") == ""
    finally:
        languages._model.cache_clear()
