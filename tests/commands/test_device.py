"""`--device` decides for FAISS, too, before an index or a model is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError
from imprompt.core.hub.fetch import Announce, silent
from tests.conftest import Imprompt


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that FAISS is asked to use; each command ends there."""
    devices: list[str] = []

    def opened_gpu(device: str, *, announce: Announce = silent) -> None:
        devices.append(device)
        raise ConfigError("far enough")

    monkeypatch.setattr("imprompt.store.gpu.opened_gpu", opened_gpu)
    return devices


def test_a_few_questions_are_the_processors(
    imprompt: Imprompt, asked: list[str], tmp_path: Path
) -> None:
    """A few questions stay on the CPU; a larger batch, or `cuda`, uses the GPU."""
    for i in range(33):
        (tmp_path / f"{i}.png").touch()
    for words in (
        ["--text", "a fox"],
        [tmp_path],
        ["--text", "a fox", "--device", "cuda"],
        [tmp_path, "--device", "cpu"],
    ):
        done = imprompt("query", *words, "--index", tmp_path / "index")
        assert (done.code, "far enough" in done.err) == (ConfigError.exit_code, True)
    assert asked == ["cpu", "auto", "cuda", "cpu"]


def test_a_submission_takes_what_there_is(
    imprompt: Imprompt, asked: list[str], tmp_path: Path
) -> None:
    """With the device of the option, `auto` without."""
    for words in ([], ["--device", "cuda"]):
        imprompt(
            "submit", tmp_path, "--out", tmp_path / "out.csv", *words, "--index", tmp_path / "index"
        )
    assert asked == ["auto", "cuda"]
