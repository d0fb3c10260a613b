"""The extension for AUTOMATIC1111 and Forge, in the gradio that each brings, against a real server.

`make test-clients` makes the two environments and runs it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.commands.test_query_folder import carrying
from tests.conftest import Imprompt

ROOT = Path(__file__).resolve().parents[2]
DRIVE = Path(__file__).with_name("drive_a1111.py")
EXTENSION = ROOT / "integrations" / "a1111"


@pytest.mark.parametrize(("folder", "version"), [("gradio3", "3.41.2"), ("gradio4", "4.40.0")])
def test_the_tab(
    folder: str, version: str, address: str, index: Path, tmp_path: Path, imprompt: Imprompt
) -> None:
    """It is built and registered; its answers are the command line's; what is sent is infotext."""
    exact = carrying(tmp_path / "exact.png", "a red fox, oil painting")
    plain = tmp_path / "plain.png"
    Image.effect_noise((64, 64), 60).convert("RGB").save(plain)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (said,) = imprompt("query", plain, "--index", index, "-k", "3", "--json").lines
    python = ROOT / ".venv-clients" / folder / "bin" / "python"
    images = [str(tmp_path / name) for name in ("exact.png", "plain.png", "broken.png")]
    run = subprocess.run(
        [str(python), str(DRIVE), str(EXTENSION), address, *images],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    done: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert (done["gradio"], done["blocks"]) == (version, True)
    assert done["tab"] == ["imprompt", "imprompt"]
    assert done["bound"] == ["txt2img", "img2img"]
    of_exact, of_plain, of_broken, of_nothing = done["found"]
    assert of_exact[:2] == ["a red fox, oil painting", "blur"]
    assert of_exact[2].startswith("Exact: written in the file by AUTOMATIC1111")
    assert of_plain[0] == said["prompt"]
    assert of_plain[2].startswith("Estimated")
    assert len(of_plain[3].splitlines()) == 3
    assert of_broken[0] == ""
    assert of_broken[2].startswith("imprompt: ")
    assert of_nothing[2] == "Choose an image first."
    sent, estimate = done["pasted"][:2]
    with Image.open(exact) as opened:
        assert sent == opened.text["parameters"]  # type: ignore[attr-defined]
    assert estimate == said["prompt"]
    assert done["edited"] == "edited"
    assert "Start it with `imprompt serve`" in done["away"][2]
