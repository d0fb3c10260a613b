"""The page: self-contained, and safe with hostile words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from imprompt.evaluation.report_page import ReportImage, gallery_images, render, write_page
from imprompt.evaluation.study import Study, make_report

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>'


def test_a_page_shows_no_prompt_unless_asked(honest: Study, tmp_path: Path) -> None:
    """Without the gallery the page has no text and no picture of the pairs."""
    write_page(tmp_path / "plain.html", honest)
    plain = (tmp_path / "plain.html").read_text("utf-8")
    assert not any(row.texts[0] in plain for row in honest.pairs.rows)
    assert not any(prediction.prompt in plain for prediction in honest.predictions)
    assert "image/webp" not in plain
    write_page(tmp_path / "gallery.html", honest, gallery=True)
    shown = (tmp_path / "gallery.html").read_text("utf-8")
    assert shown.count("image/webp") == 24
    assert all(f"Gallery: {name}" in shown for name in ("best", "median", "worst"))


def test_a_page_needs_no_other_host(honest: Study, tmp_path: Path) -> None:
    """All that the page loads is inline; a policy forbids anything else."""
    write_page(tmp_path / "page.html", honest, gallery=True)
    page = (tmp_path / "page.html").read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|<script|@import|url\(", page)
    assert "default-src 'none'" in page


def test_hostile_words_stay_words(honest: Study) -> None:
    """Prompts, names of generators, of blend configs and of files are shown and never run."""
    report = make_report(honest)
    report = msgspec.structs.replace(
        report,
        blend_config=HOSTILE,
        main_kind=HOSTILE,
        failed=((HOSTILE, HOSTILE),),
        slices=tuple(msgspec.structs.replace(part, name=HOSTILE) for part in report.slices),
    )
    exhibit = replace(gallery_images(honest)["best"][0], truth=HOSTILE, printed=HOSTILE)
    assert isinstance(exhibit, ReportImage)
    page = render(
        report,
        {"answers": b"x", "spread": b"x", "generator": b"x", "length": b"x"},
        {"best": [exhibit]},
    )
    assert "<script" not in page
    assert "<img src=http" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("gallery", [False, True])
def test_a_page_is_written_whole(honest: Study, tmp_path: Path, gallery: bool) -> None:
    """It ends where a page ends."""
    write_page(tmp_path / "page.html", honest, gallery=gallery)
    assert (tmp_path / "page.html").read_text("utf-8").rstrip().endswith("</html>")
