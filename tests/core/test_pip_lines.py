"""The pip commands of messages install what they say, wherever the user stands."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imprompt.core import pip_lines
from imprompt.core.pip_lines import install_extra, missing_package, pip_install

ROOT = Path(pip_lines.__file__).resolve().parent.parent


@pytest.fixture
def bin_folder() -> Path:
    return Path(sys.executable).absolute().parent


def test_in_an_activated_environment_it_is_pip(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.fspath(bin_folder), prepend=os.pathsep)
    assert pip_install("duckdb") == "pip install duckdb"


def test_elsewhere_it_is_the_python_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another environment's pip would install into that one."""
    other = tmp_path / "pip"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.chdir(tmp_path)
    first, *rest = shlex.split(pip_install("duckdb"))
    assert Path(first) == Path(sys.executable)
    assert rest == ["-m", "pip", "install", "duckdb"]


def test_in_a_clone_it_installs_the_clone_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert install_extra("clip").endswith("pip install -c constraints.txt -e '.[clip]'")
    assert install_extra("").endswith("-e '.'")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(install_extra("clip"))
    assert words[-4:] == ["-c", f"{ROOT}/constraints.txt", "-e", f"{ROOT}[clip]"]


def test_without_a_clone_it_installs_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pip_lines, "_ROOT", tmp_path)
    assert install_extra("clip").endswith("pip install 'imprompt[clip]'")
    error = ModuleNotFoundError("No module named 'typer'", name="typer")
    assert missing_package(error).endswith("pip install 'imprompt[cpu]'")
    line = missing_package(error, extra="report")
    assert line.endswith("install the extra report: " + install_extra("report"))


def test_a_python_without_the_packages_gets_one_line(tmp_path: Path) -> None:
    """As when `python3 cli.py` is typed in a clone whose packages are in `.venv`."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = next(
        path for name in ("bin/python", "Scripts/python.exe") if (path := bare / name).is_file()
    )
    run = subprocess.run(
        [str(python), str(ROOT / "cli.py"), "query", "image.png"],
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert f"{python} has no package typer: " in run.stderr
    command = f"{python.relative_to(tmp_path)} -m pip install -c {ROOT}/constraints.txt"
    assert f"{command} -e '{ROOT}[cpu]'" in run.stderr


def test_a_package_that_is_missing_later_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no fault of imprompt's, and no traceback."""
    from imprompt import cli
    from imprompt.core.errors import ConfigError

    def fail() -> None:
        raise ModuleNotFoundError("No module named 'duckdb'", name="duckdb")

    monkeypatch.setattr(cli, "app", fail)
    assert cli.run() == ConfigError.exit_code
    assert "has no package duckdb: " in capsys.readouterr().err
