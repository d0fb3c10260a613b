"""SIGKILL at any moment of `watch --txt`: a text file is whole or not there, and none is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands.test_filter_options import PAINTED, build
from tests.commands.test_query_folder import carrying

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 24
KILLS = 3


def prompt(number: int) -> str:
    return f"a blue bowl number {number}, oil painting, {'soft light, ' * 200}warm"


def test_kills_at_random(tmp_path: Path) -> None:
    """Killed three times while images appear, then left to finish: one whole text file each.

    What a kill left beside them is hidden, and no text file is written twice.
    """
    index, folder = build(tmp_path, PAINTED), tmp_path / "images"
    folder.mkdir()
    rng = random.Random(3)  # noqa: S311 moments, not secrets
    command = [sys.executable, "-u", str(ROOT / "cli.py"), "watch", str(folder), "--existing"]
    command += ["--txt", "--index", str(index)]
    appeared = 0
    written: dict[Path, int] = {}
    for kill in range(KILLS + 1):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert next(line for line in process.stderr if line.startswith("Watching"))
            target = IMAGES * (kill + 1) // (KILLS + 1)
            for number in range(appeared, target):
                carrying(folder / f"{number}.png", prompt(number))
            appeared = target
            if kill < KILLS:
                time.sleep(rng.uniform(0.3, 1.2))
                process.kill()
                process.wait()
            else:
                deadline = time.monotonic() + 60
                while len([*folder.glob("*.txt")]) < IMAGES:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)
        for path in folder.glob("[!.]*.txt"):
            assert path.read_text("utf-8") == prompt(int(path.stem)) + "\n"
            assert written.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert len(written) == IMAGES
    visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert visible == {f"{i}.{kind}" for i in range(IMAGES) for kind in ("png", "txt")}
