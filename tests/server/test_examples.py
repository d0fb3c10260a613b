"""What docs/serving.md shows is run as it stands there, against a real server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import PROMPTS
from tests.server.pictures import PARAMETERS, png
from tests.server.processes import ROOT, served

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:7861"


def block(heading: str, language: str) -> str:
    """The first block of code below a heading."""
    found = re.search(rf"^## {heading}.*?^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


@pytest.fixture(scope="module")
def address(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(index, tmp_path_factory.mktemp("examples") / "log") as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the examples find their picture."""
    (tmp_path / "picture.png").write_bytes(png(parameters=PARAMETERS))
    return tmp_path


def test_curl(address: str, folder: Path) -> None:
    """Each line answers what the page says it asks for."""
    curl = shutil.which("curl")
    assert curl, "There is no curl. Install Debian's: apt-get install --yes curl"
    lines = [line for line in block("curl", "bash").splitlines() if line]
    assert len(lines) == 4
    answers = []
    for line in lines:
        assert line.startswith("curl ")
        words = f"{line} --silent --show-error --fail-with-body".replace(ADDRESS, address)
        done = subprocess.run(
            ["/bin/sh", "-c", words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        answers.append(json.loads(done.stdout))
    query, search, extract, info = answers
    assert query["results"][0]["how"] == "exact"
    assert "explanation" not in query["results"][0], "there is nothing to explain"
    assert search["results"][0]["nearest"][0]["prompt"] == PROMPTS[2]
    assert extract["tool"] == "AUTOMATIC1111"
    assert info["prompts"] == len(PROMPTS)


def test_python(address: str, folder: Path) -> None:
    """It prints how the prompt was found, and the prompt."""
    code = block("Python", "python").replace(ADDRESS, address)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "exact a small lighthouse on a cliff\n"
