"""Where things lie, and the gate to the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import settings
from core.errors import WeightsMissing
from core.fetch import HubFile, fetch


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--index` first, then IMPROMPT_INDEX, then the user's data folder."""
    monkeypatch.setenv("IMPROMPT_INDEX", str(tmp_path / "named"))
    assert settings().index == tmp_path / "named"
    assert settings(index=tmp_path / "option").index == tmp_path / "option"
    monkeypatch.delenv("IMPROMPT_INDEX")
    assert settings().index.parts[-2:] == ("imprompt", "index")


def test_offline_is_set_by_option_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any value but 0 and nothing shuts the gate."""
    monkeypatch.delenv("IMPROMPT_OFFLINE", raising=False)
    assert not settings().offline
    assert settings(offline=True).offline
    monkeypatch.setenv("IMPROMPT_OFFLINE", "1")
    assert settings().offline
    monkeypatch.setenv("IMPROMPT_OFFLINE", "0")
    assert not settings().offline


def test_a_shut_gate_names_the_file_and_the_remedy() -> None:
    """Offline, a file that the cache lacks ends in one clear error and no request."""
    said: list[str] = []
    with pytest.raises(WeightsMissing, match=r"weights\.bin.*--offline.*copy its hub cache") as caught:
        fetch(HubFile("nobody/nothing", "weights.bin"), offline=True, announce=said.append)
    assert caught.value.path == "weights.bin"
    assert not said
