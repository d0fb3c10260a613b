"""Windows and macOS as far as they can be had on Linux.

A process without what Python lacks on Windows imports the product and uses an index. That is no
run on Windows: its paths, consoles, file locks and libraries were never tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DRIVER = Path(__file__).with_name("without_posix_driver.py")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the driver prints."""
    folder = tmp_path_factory.mktemp("a folder, größer")
    (folder / "corpus.txt").write_text("a red fox in the snow\na lake at dawn, oil on canvas\n")
    (folder / "more.txt").write_text("a castle on a hill, pixel art\n")
    Image.effect_noise((300, 300), 50).convert("RGB").save(folder / "a ü.png")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(DRIVER), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "IMPROMPT_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_every_module_is_imported_without_posix(told: dict[str, Any]) -> None:
    """No module needs `fcntl`, `resource` and their like to be imported."""
    assert told["failed"] == {}
    assert told["modules"] > 200


def test_an_index_is_built_and_used_without_posix(told: dict[str, Any]) -> None:
    """Built, asked, verified, extended, cut and submitted from, in a folder with odd letters."""
    assert {step: done[0] for step, done in told["done"].items() if done[0]} == {}, told["done"]
    found = json.loads(told["done"]["query"][1])
    assert found["nearest"][0]["prompt"] == "a red fox in the snow"
    estimated = json.loads(told["done"]["query an image"][1])
    assert (estimated["how"], bool(estimated["prompt"])) == ("estimated", True)
    assert "memory unknown" in told["done"]["doctor"][1]
    assert told["left"] == []


def test_an_open_version_pins_itself(told: dict[str, Any]) -> None:
    """Where there is no `flock`, `gc` leaves what a reader has open; its threads read as one."""
    assert told["pinned"] == {"kept": [], "alike": True, "removed": True}
    assert told["writers"] == "BuildLocked"


def test_links_are_refused_by_path(told: dict[str, Any]) -> None:
    """Without descriptors of folders each part of a path is looked at."""
    assert set(told["links"].values()) == {"Checksum", "found"}


@pytest.mark.parametrize("options", [["--json"], []])
def test_output_is_utf8_whatever_the_code_page(options: list[str], tmp_path: Path) -> None:
    """A pipe of Windows has the encoding of its code page, which lacks most letters."""
    texts = PngInfo()
    texts.add_itxt("parameters", "a fox, 日本\nSteps: 20, Sampler: Euler a, Seed: 1")
    Image.new("RGB", (64, 64)).save(tmp_path / "ü.png", pnginfo=texts)
    done = subprocess.run(
        [sys.executable, str(DRIVER.parent.parent / "cli.py"), "extract", "ü.png", *options],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "a fox, 日本" in done.stdout.decode("utf-8")
