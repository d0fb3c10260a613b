"""`watch`: answers as images appear, text files beside them, and an end that loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from imprompt.core.errors import PartialFailure, QueryError
from tests.commands.test_filter_options import PAINTED, build
from tests.commands.test_query_folder import carrying, plain
from tests.conftest import Imprompt

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("watch"), PAINTED)


@contextmanager
def watching(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run `imprompt watch WORD…` in a process that is ready when this returns."""
    command = [sys.executable, "-u", str(ROOT / "cli.py"), "watch", *map(str, words)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("Watching"):
                    break
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.slow
def test_each_image_is_answered_when_it_appears(index: Path, tmp_path: Path) -> None:
    """One line each, a text file beside each, and none over a file that exists."""
    with watching(tmp_path, "--index", index, "--txt") as process:
        assert process.stdout is not None
        carrying(tmp_path / "carried.png", "a red fox, oil painting")
        assert process.stdout.readline() == (
            f"{tmp_path / 'carried.png'}: a red fox, oil painting [exact]\n"
        )
        (tmp_path / "taken.txt").write_text("mine")
        plain(tmp_path / "taken.png")
        assert process.stdout.readline().startswith(f"{tmp_path / 'taken.png'}: ")
        plain(tmp_path / "plain.png")
        line = process.stdout.readline()
        code, rest, err = ended(process, signal.SIGINT)
    assert rest == ""
    assert (tmp_path / "carried.txt").read_text() == "a red fox, oil painting\n"
    assert (tmp_path / "taken.txt").read_text() == "mine"
    prompt = (tmp_path / "plain.txt").read_text().strip()
    assert prompt
    assert line.startswith(f"{tmp_path / 'plain.png'}: {prompt} [estimated")
    assert code == PartialFailure.exit_code
    assert "3 images answered." in err
    assert err.count(f"{tmp_path / 'taken.txt'} already exists") == 2, "at once, and at the end"


@pytest.mark.slow
def test_lines_of_json(index: Path, tmp_path: Path) -> None:
    """What was there comes first with --existing; a broken image is a line, too."""
    carrying(tmp_path / "a.png", "a blue bowl")
    with watching(tmp_path, "--index", index, "--json", "--existing") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        whole = tmp_path / ".whole.png"
        Image.effect_noise((64, 64), 50).save(whole)
        (tmp_path / "b.png").write_bytes(whole.read_bytes()[:2000])
        second = json.loads(process.stdout.readline())
        code, rest, _ = ended(process, signal.SIGTERM)
    assert (first["prompt"], first["how"]) == ("a blue bowl", "exact")
    assert second["image"] == str(tmp_path / "b.png")
    assert second["error"]["kind"] == "image-rejected"
    assert (code, rest) == (PartialFailure.exit_code, "")


def test_nothing_to_watch(imprompt: Imprompt, index: Path, tmp_path: Path) -> None:
    """A folder that is not there, or a file, is one line before a model is loaded."""
    for place in (tmp_path / "none", plain(tmp_path / "a.png")):
        done = imprompt("watch", place, "--index", index)
        assert done.code == QueryError.exit_code
        assert f"{place} is not a folder" in done.err
    done = imprompt("watch", tmp_path, "--index", index, "--txt-from", "exact")
    assert "--txt-from requires --txt" in done.err
