"""The real clients against a real server; `make test-clients` makes their environment and runs it.

With IMPROMPT_RECORD=1 the requests that they sent are written to requests.json, which the ordinary
suite replays.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import PROMPTS
from tests.server.pictures import PARAMETERS, png

ROOT = Path(__file__).resolve().parent.parent.parent.parent
DRIVE = Path(__file__).with_name("drive.py")
REQUESTS = Path(__file__).with_name("requests.json")
PYTHON = ROOT / ".venv-clients" / "bin" / "python"


@pytest.fixture
def address(index: Path) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [
        sys.executable,
        "cli.py",
        "serve",
        "--index",
        str(index),
        "--port",
        str(port),
        "--quiet",
    ]
    server = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(40)


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
