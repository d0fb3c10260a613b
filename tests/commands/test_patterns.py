"""Patterns of image files that the shell did not expand."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import Imprompt

VERBS = {
    "query": ("query",),
    "extract": ("extract",),
    "embed": ("embed", "--images", "--out", "out.npy"),
}


def test_a_pattern_is_expanded(tmp_path: Path, imprompt: Imprompt) -> None:
    """`query` and `extract` answer for each file that it matches, sorted."""
    for name in ("b.png", "a.png", "c.gif"):
        texts = PngInfo()
        texts.add_text("parameters", f"a fox in {name}\nSteps: 20, Sampler: Euler a, Seed: 1")
        Image.new("RGB", (64, 64)).save(tmp_path / name, "PNG", pnginfo=texts)
    for verb in ("query", "extract"):
        done = imprompt(
            verb, tmp_path / "*.png", "--json", *(("-k", "0") if verb == "query" else ())
        )
        assert done.code == 0
        assert [Path(line["image"]).name for line in done.lines] == ["a.png", "b.png"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_pattern_without_a_match_is_one_line(
    verb: str, tmp_path: Path, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the pattern."""
    monkeypatch.chdir(tmp_path)
    done = imprompt(*VERBS[verb], "dir/*.png")
    assert done.code != 0
    assert done.err.startswith("error: No file matches 'dir/*.png'.")
    assert len(done.err.splitlines()) == 1
