"""The user's `config.toml`: defaults below all else, and one line for what it may not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from imprompt.cli import app
from imprompt.commands.config_file import MOST_BYTES, defaults
from imprompt.core.errors import ConfigError
from imprompt.core.settings import CONFIG_VARIABLE, INDEX_VARIABLE, OFFLINE_VARIABLE
from tests.conftest import Imprompt
from tests.store.builders import build


@pytest.fixture(autouse=True)
def libraries_that_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """For `doctor`: to import torch takes seconds, and is not what is tested here."""
    monkeypatch.setattr("imprompt.environment.diagnosis.loading_problems", lambda modules: {})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the file, which is not there yet, as a variable names it."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


@pytest.fixture
def indexes(tmp_path: Path) -> dict[str, Path]:
    """Indexes of as many prompts as their names say."""
    for rows in (3, 5, 7):
        build(tmp_path / str(rows), rows=rows)
    return {str(rows): tmp_path / str(rows) for rows in (3, 5, 7)}


def n_rows(imprompt: Imprompt, *words: str | Path) -> int:
    done = imprompt("info", "--json", *words)
    assert done.code == 0, done.err
    (found,) = done.lines
    return int(found["rows"])


def test_what_is_typed_wins_over_the_environment_and_that_over_the_file(
    imprompt: Imprompt, config: Path, indexes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verb's table wins over the top of the file, and is of that verb alone."""
    config.write_text(f"index = {json.dumps(str(indexes['3']))}\n")
    assert n_rows(imprompt) == 3
    config.write_text(
        f"index = {json.dumps(str(indexes['3']))}\n"
        f"[info]\nindex = {json.dumps(str(indexes['5']))}\n"
    )
    assert n_rows(imprompt) == 5
    assert "3 prompts" in " ".join(imprompt("doctor").out.split())
    monkeypatch.setenv(INDEX_VARIABLE, str(indexes["7"]))
    assert n_rows(imprompt) == 7
    assert n_rows(imprompt, "--index", indexes["3"]) == 3


def test_switches_and_lists(
    imprompt: Imprompt, config: Path, indexes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch is true or false, a repeatable option has a list or one value."""
    config.write_text('offline = true\n[info]\njson = true\n[query]\ncontains = "fog"\nk = 3\n')
    assert imprompt("info", "--index", indexes["3"]).lines[0]["rows"] == 3
    group = get_command(app)
    found = defaults(group)
    assert found["query"] == {"offline": True, "contains": ["fog"], "k": 3}
    assert found["serve"] == found["embed"] == {"offline": True}
    assert found["gc"] == {}
    config.write_text('offline = false\n[query]\ncontains = ["fog", "sea"]\nno-artists = true\n')
    assert defaults(group)["query"] == {
        "offline": False,
        "contains": ["fog", "sea"],
        "no_artists": True,
    }
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    assert "offline" not in defaults(group)["query"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("kk = 3", "there is no option 'kk'"),
        ("[quer]\nk = 3", "there is no command 'quer'. Did you mean 'query'?"),
        (
            "[query]\nno-artist = true",
            "no option of `query` 'no-artist'. Did you mean 'no-artists'",
        ),
        ('k = "x"', "k = 'x' cannot be used"),
        ("[query]\nk = -1", "k = -1 cannot be used"),
        ("device = ['x']", "device = ['x'] cannot be used: it takes text or a number"),
        ("offline = 3", "offline = 3 cannot be used: it takes true or false"),
        ("[build-index]\nreplace = true", "'replace' cannot have a default"),
        ('[remove]\nwhere = "row_id > 0"', "'remove' cannot have a default"),
        ("a b", "is not TOML"),
        ("\udcff", "is not TOML"),
        ("x = " + "[" * 100_000, "is not TOML"),
        ("#" * (MOST_BYTES + 1), "is longer than 1 MiB"),
    ],
)
def test_what_it_may_not_say(imprompt: Imprompt, config: Path, content: str, said: str) -> None:
    """One line that names the file; help works all the same, and `doctor` shows the error."""
    config.write_bytes(content.encode("utf-8", "surrogateescape"))
    done = imprompt("info")
    assert done.code == ConfigError.exit_code
    assert done.err.startswith(f"error: {config}")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert len(done.err) < 600
    assert imprompt("info", "--help").code == 0
    shown = imprompt("doctor")
    assert shown.code == ConfigError.exit_code
    assert shown.out.startswith(f"Not ready: {config}")


def test_a_file_that_is_named_and_not_there(imprompt: Imprompt, config: Path) -> None:
    """It is an error, and none if no variable names it."""
    done = imprompt("info")
    assert done.code == ConfigError.exit_code
    assert f"{config}, which {CONFIG_VARIABLE} names, does not exist" in done.err


def test_the_version(imprompt: Imprompt, config: Path) -> None:
    """Whatever the file says."""
    config.write_text("kk = 3")
    done = imprompt("--version")
    assert done.code == 0
    assert done.out.startswith("imprompt 0.")


def test_a_shell_completes_commands_and_options() -> None:
    """As the script that `--install-completion` writes for bash asks for them."""
    code = "import sys; sys.argv[0] = 'imprompt'; from imprompt.cli import main; main()"
    for line, wanted in (("imprompt que", "query"), ("imprompt query --no-art", "--no-artists")):
        asked = {
            "_IMPROMPT_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [wanted]
