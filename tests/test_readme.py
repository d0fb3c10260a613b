"""The README keeps its word: its files exist and its options are real."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_every_link_leads_somewhere() -> None:
    """A file that the README, or a page of docs, names beside itself is there."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_option_that_is_shown_exists() -> None:
    """The README shows no verb and no option that the command line does not have."""
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for line in re.findall(r"python cli\.py [^\n`#]*", README):
        verb = line.split()[2]
        section = re.search(rf"^## {verb}$.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
        assert section, line
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", line):
            assert option in section.group(), f"{verb} has no {option}"


def test_the_readme_is_short() -> None:
    """Figures and tables of status stand in docs/status.md."""
    assert len(README.split()) <= 900


def test_the_glossary_is_short() -> None:
    """At most 25 words, each defined once."""
    page = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", page, re.MULTILINE)
    assert 0 < len(words) == len(set(words)) <= 25


def test_nothing_is_left_to_fill_in() -> None:
    """No placeholder was forgotten."""
    for path in [
        ROOT / "README.md",
        ROOT / "Makefile",
        ROOT / "examples" / "demo.py",
        *(ROOT / "docs").glob("*.md"),
    ]:
        assert not re.search(r"\{\{|\bTODO\b|\bMINUTES\b|\bGIGABYTES\b", path.read_text("utf-8")), (
            path
        )
