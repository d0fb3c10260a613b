"""Prompts that name artists are told from prompts that use the same words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError
from imprompt.retriever.artists import FILE, Artists, load_artists

NAMES = [
    "Greg Rutkowski",
    "Joan Miró",
    "A.B. Frost",
    "Raphael",
    "Constant",
    "Artgerm",
    "O'Keeffe",
    "Man Ray",
    "Ai-Mitsu",
    "",
    "  ",
]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a castle by greg rutkowski", True),
        ("castle, GREG RUTKOWSKI, 8k", True),
        ("greg_rutkowski style", True),
        ("a castle by rutkowski", False),
        ("greg, rutkowski", False),
        ("gregg rutkowskis", False),
        ("by joan miro", True),
        ("by Joan Miro\u0301", True),
        ("a. b. frost drawing", True),
        ("raphael the turtle eats pizza", False),
        ("a madonna by Raphael", True),
        ("in the style of raphael", True),
        ("constant motion", False),
        ("lit by constant light", True),  # the price of a name that is a word
        ("iron man, ray tracing", False),
        ("georgia o'keeffe", True),
        ("art by ai mitsu", True),
        ("", False),
        ("油画 🎨", False),
    ],
)
def test_names_and_words(text: str, named: bool) -> None:
    """Whole names anywhere, single words behind "by" or "style of"; never across a comma."""
    assert Artists(NAMES).named_in(text) is named


def test_the_list_is_read_without_importing_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of that name on the path is enough; its code does not run."""
    package = tmp_path / "clip_interrogator"
    (package / FILE).parent.mkdir(parents=True)
    (package / FILE).write_text("Greg Rutkowski\nJoan Miró\n", "utf-8")
    (package / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "clip_interrogator", raising=False)
    assert load_artists().named_in("by joan miro")
    assert "clip_interrogator" not in sys.modules


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left out silently."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "clip_interrogator", raising=False)
    with pytest.raises(ConfigError, match="clip-interrogator") as caught:
        load_artists()
    assert "pip install" in caught.value.hint
