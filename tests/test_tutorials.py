"""The tutorials work as they are printed: their commands run, and their output comes out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server.processes import free_port
from tests.tutorial_files import write_artist, write_competitor, write_researcher

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d[\d.,]*")

pytestmark = pytest.mark.slow


def written_competitor(home: Path) -> None:
    write_competitor(home)
    write_researcher(home)


def nothing(_home: Path) -> None:
    """An operator begins with an empty folder."""


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("artist", write_artist),
        ("competitor", written_competitor),
        ("researcher", write_researcher),
        ("operator", nothing),
    ],
)
def test_its_commands_run_and_say_what_it_shows(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    """In order, in one shell that stops at the first failure; numbers may differ."""
    write(tmp_path)
    blocks = _BLOCK.findall((TUTORIALS / f"{name}.md").read_text("utf-8"))
    assert {kind for kind, _ in blocks} <= {"sh", "text", "python"}
    script = ["set -euo pipefail"]
    for (kind, body), (_, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "sh":
            first, *rest = body.replace("7861", "$PORT").splitlines()
            fails = "error: " in shown and not first.endswith("\\")
            script += [f"{first} || [ $? -eq 3 ]" if fails else first, *rest]
        elif kind == "python":
            script.append(f'"{sys.executable}" - <<"END"\n{body}END')
    program = tmp_path / "bin" / "imprompt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "cli.py"}" "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PORT": str(free_port()),
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }
    log = tmp_path / "output.txt"
    with log.open("w") as output:
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join(script)],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=240)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # also a server that it left behind
    printed = log.read_text("utf-8")
    assert code == 0, printed
    said = {_shape(line) for line in printed.splitlines()}
    for line in (line for kind, body in blocks if kind == "text" for line in body.splitlines()):
        assert _shape(line) in said, f"{line!r} is not in:\n{printed}"


def _shape(line: str) -> str:
    """Return a line of output without its numbers and its spacing."""
    return " ".join(_NUMBER.sub("N", line).split())
