"""The real clients against a real server; `make test-clients` makes their environment and runs it.

With IMPROMPT_RECORD=1 the requests that they sent are written to requests.json, which the ordinary
suite replays.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import PROMPTS
from tests.server.pictures import PARAMETERS, png
from tests.server.processes import ROOT, served

DRIVE = Path(__file__).with_name("drive.py")
REQUESTS = Path(__file__).with_name("requests.json")
PYTHON = ROOT / ".venv-clients" / "bin" / "python"


@pytest.fixture
def address(index: Path, tmp_path: Path) -> Iterator[str]:
    with served(index, tmp_path / "log") as (_, port):
        yield f"http://127.0.0.1:{port}"


def test_the_real_clients_work_without_a_change(address: str, tmp_path: Path) -> None:
    """They read our answers as meant, and they send what the ordinary suite replays."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(png(parameters=PARAMETERS, side=16))
    record = tmp_path / "record.json"
    subprocess.run(
        [str(PYTHON), str(DRIVE), address, str(picture), str(record)], check=True, cwd=tmp_path
    )
    done = json.loads(record.read_text("utf-8"))
    results = done["results"]
    assert results["scripts"] == {"txt2img": [], "img2img": []}
    assert results["interrogate"] == "a small lighthouse on a cliff"
    assert results["png_info"] == PARAMETERS
    assert results["parameters"]["Seed"] == "1234"
    assert results["by_text"][0]["caption"] == PROMPTS[2]
    for name in ("by_text", "by_image", "by_vector"):
        assert results[name]
        assert all({"id", "similarity", "caption"} <= hit.keys() for hit in results[name])
    if os.environ.get("IMPROMPT_RECORD"):
        REQUESTS.write_text(json.dumps(done["requests"], indent=1) + "\n", "utf-8")
    assert done["requests"] == json.loads(REQUESTS.read_text("utf-8")), (
        "record them anew with IMPROMPT_RECORD=1"
    )
