"""Where things lie, and the gate to the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError, WeightsMissing
from imprompt.core.hub.fetch import fetch
from imprompt.core.hub.hub_files import HubFile
from imprompt.core.settings import MilvusPlace, index_place, settings


def test_an_option_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--index` first, then IMPROMPT_INDEX, then the user's data folder."""
    monkeypatch.setenv("IMPROMPT_INDEX", str(tmp_path / "named"))
    assert settings().index == tmp_path / "named"
    assert settings(index=tmp_path / "option").index == tmp_path / "option"
    monkeypatch.delenv("IMPROMPT_INDEX")
    assert settings().index.parts[-2:] == ("imprompt", "index")


PLACES = {
    "milvus:http://127.0.0.1:19530": "milvus:http://127.0.0.1:19530",
    "milvus:https://Milvus.example/prompts/": "milvus:https://milvus.example/prompts",
    "milvus:http://[::1]:19530": "milvus:http://[::1]:19530",
    "milvus:/data/prompts.db": "milvus:/data/prompts.db",
}


@pytest.mark.parametrize("named", PLACES)
def test_an_index_may_lie_on_milvus(named: str) -> None:
    """A server's address, a file of Milvus Lite (also relative); anything else is a folder."""
    assert str(index_place(named)) == PLACES[named]
    assert index_place("milvus:a.db") == MilvusPlace(str(Path.cwd() / "a.db"))
    assert index_place("a.db") == Path.cwd() / "a.db"


@pytest.mark.parametrize(
    "named",
    [
        "milvus:http://root:hunter2@host:19530",
        "milvus:http://hunter2@host",
        "milvus:https://host/db?token=hunter2",
        "milvus:http://host/#hunter2",
        "milvus:root:hunter2@host:19530",
        "milvus:http://host:hunter2",
        "milvus:http://host/a/hunter2",
        "milvus:ftp://hunter2",
        "milvus:http:///hunter2",
        "milvus:hunter2",
        "milvus:",
    ],
)
def test_what_is_no_address_of_milvus_is_refused_and_not_repeated(named: str) -> None:
    """It may hold a password, and the message may end in a log."""
    with pytest.raises(ConfigError) as caught:
        index_place(named)
    assert "hunter2" not in str(caught.value)
    assert "milvus:" in caught.value.message


def test_what_needs_a_folder_says_so_of_milvus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment names it; caches do not care."""
    monkeypatch.setenv("IMPROMPT_INDEX", "milvus:http://host:19530")
    assert settings().cache.is_absolute()
    with pytest.raises(ConfigError, match=r"milvus:http://host:19530 is on Milvus.*push"):
        _ = settings().index


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
    with pytest.raises(
        WeightsMissing, match=r"weights\.bin.*--offline.*copy its hub cache"
    ) as caught:
        fetch(HubFile("nobody/nothing", "weights.bin"), offline=True, announce=said.append)
    assert caught.value.path == "weights.bin"
    assert not said
