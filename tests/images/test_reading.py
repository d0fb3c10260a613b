"""read_embedded_prompts: many files at once, in order, in bounded memory, bad ones included."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from imprompt.core.errors import ImageRejected, MetadataRejected
from imprompt.images.prompts import reading
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from imprompt.images.prompts.reading import read_embedded_prompts
from tests.images.hostile_files import picture_bytes
from tests.images.test_embedded_prompts import TOO_LARGE
from tests.images.tool_files import HIDDEN_FILES, TOOL_FILES, png_with_chunks


def test_the_same_as_one_after_the_other(tmp_path: Path) -> None:
    """Good and bad files, missing ones and ones without a prompt: the same results in order."""
    for name, file in TOOL_FILES.items():
        (tmp_path / name).write_bytes(file.data)
    (tmp_path / "plain.png").write_bytes(picture_bytes("PNG"))
    (tmp_path / "empty.png").touch()
    (tmp_path / "large.png").write_bytes(png_with_chunks(TOO_LARGE["50 MB"][0]))
    paths = [*sorted(tmp_path.iterdir()), tmp_path / "missing.png"] * 3

    def alone(path: Path) -> EmbeddedPrompt | str | None:
        try:
            return read_embedded_prompt(path)
        except ImageRejected as error:
            return str(error)

    found = [
        (path, str(one) if isinstance(one, ImageRejected) else one)
        for path, one in read_embedded_prompts(paths)
    ]
    assert found == [(path, alone(path)) for path in paths]
    assert any(isinstance(one, MetadataRejected) for _, one in read_embedded_prompts(paths))


def test_only_a_few_files_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One result of ten thousand does not read them all, and the threads end with the iterator."""
    read: list[Path] = []
    threads = set(threading.enumerate())
    monkeypatch.setattr(reading, "read_embedded_prompt", lambda path, hidden: read.append(path))
    results = read_embedded_prompts([tmp_path] * 10_000)
    next(results)
    results.close()
    assert 1 <= len(read) < 100
    assert set(threading.enumerate()) == threads


def test_hidden_prompts_are_read_when_asked_for(tmp_path: Path) -> None:
    """Not by default, because the pixels are decoded for them."""
    path = tmp_path / "a.png"
    path.write_bytes(HIDDEN_FILES["novelai-hidden.png"].data)
    ((_, without),) = read_embedded_prompts([path])
    ((_, found),) = read_embedded_prompts([path], hidden=True)
    assert without is None
    assert isinstance(found, EmbeddedPrompt)
    assert found.tool == "NovelAI"
