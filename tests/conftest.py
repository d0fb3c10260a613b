"""Fixtures that every room's tests may use."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True, slots=True)
class Done:
    """How one run of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Imprompt = Callable[..., Done]


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tests see no settings of the developer: own data and cache folders, no index, no hub."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IMPROMPT_INDEX", "IMPROMPT_OFFLINE", "IMPROMPT_CONFIG", "HF_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("HF_HOME", str(home / "hub"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "140")
        yield


@pytest.fixture
def imprompt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Imprompt:
    """Runs `imprompt WORD…` in this process, as `python cli.py WORD…` would."""
    from imprompt import cli

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["imprompt", *map(str, words)])
        capsys.readouterr()
        code = cli.run()  # not `main`, which ends the process that calls it
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def tiny_clip() -> Path:
    """The folder of a small CLIP model that was trained on drawn scenes.

    It can be asked about `tests.assets.scenes.held_out_scenes`.
    """
    return Path(__file__).resolve().parent / "assets" / "tiny-clip"
