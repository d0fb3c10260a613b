"""`openai:URL#MODEL` against a real server: `transformers serve`, with small random models.

`make test-clients` installs what the server needs beside the packages of the tests, and runs this.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imprompt.core.errors import MemberUnavailable
from imprompt.ensemble.caption_models import CHAT_PROMPTS, MAX_ANSWER_TOKENS, caption_of
from imprompt.ensemble.chat_completions import ChatCaptioner, _data_url
from tests.conftest import Imprompt
from tests.ensemble.vision_language_models import ASKED
from tests.server.processes import ROOT, free_port

PACKAGES = ROOT / ".venv-clients" / "transformers-serve"
KINDS = ("llava", "idefics3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of random models by kind; the server takes the name in a request for a folder."""
    folder = tmp_path_factory.mktemp("models")
    return {kind: ASKED[kind](folder / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server in a process of its own, without a network and without any model."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "hub" / "hub").mkdir(parents=True)  # its list of models reads it
    port = free_port()
    words = ["-m", "transformers.cli.transformers", "serve", "--device", "cpu"]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGES),
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=log, stderr=log, env=environment, cwd=folder
        )
    try:
        deadline = time.monotonic() + 120
        while not _listens(port):
            assert process.poll() is None, (folder / "log").read_text("utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def pictures() -> list[Image.Image]:
    """One for each of the four requests that run at once, and one more."""
    gradient = Image.linear_gradient("L")
    return [
        Image.radial_gradient("L").convert("RGB"),
        gradient.convert("RGB"),
        gradient.rotate(90).convert("RGB"),
        Image.new("RGB", (80, 40), "red"),
        Image.new("RGB", (1500, 900), "blue"),
    ]


def sent(picture: Image.Image) -> Image.Image:
    """The picture as it is after it was sent: smaller, and a JPEG."""
    content = base64.b64decode(_data_url(picture).partition(",")[2])
    return Image.open(io.BytesIO(content)).convert("RGB")


def answers_of_the_library(folder: Path) -> list[str]:
    """What transformers generates for the pictures in this process, one at a time."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    answers = []
    for picture in pictures():
        content = [
            {"type": "text", "text": CHAT_PROMPTS["sentence"]},
            {"type": "image", "image": sent(picture)},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        tokens = model.generate(**inputs, max_new_tokens=MAX_ANSWER_TOKENS, do_sample=False)
        said = tokens[0, inputs["input_ids"].shape[1] :]
        answers.append(caption_of(processor.decode(said, skip_special_tokens=True)))
    return answers


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_what_the_model_says(kind: str, models: dict[str, Path], address: str) -> None:
    """Its server accepts our requests, images and all, and answers as the library generates."""
    said: list[str] = []
    captioner = ChatCaptioner.load(
        f"openai:{address}#{models[kind]}", device="cpu", offline=True, announce=said.append
    )
    captions = captioner.captions(pictures())
    assert captions == answers_of_the_library(models[kind])
    assert len(set(captions)) > 1
    assert said[0].startswith("caption makes one request per image to 127.0.0.1:")


def test_an_answer_is_made_with_it(
    models: dict[str, Path], address: str, lite_index: Path, tmp_path: Path, imprompt: Imprompt
) -> None:
    """`query --explain` shows the caption of the server's model among the members."""
    pictures()[0].save(tmp_path / "picture.png")
    blend_config = {
        "name": "served",
        "weights": {"knn": 0.5, "caption": 0.5},
        "sources": {"caption": f"openai:{address}#{models['llava']}"},
    }
    (tmp_path / "served.json").write_text(json.dumps(blend_config))
    words = ("query", tmp_path / "picture.png", "--blend", tmp_path / "served.json", "--explain")
    done = imprompt(*words, "--index", lite_index, "--json", "--offline")
    assert done.code == 0, done.err
    caption = answers_of_the_library(models["llava"])[0]
    assert json.dumps(caption) in json.dumps(done.lines)


def test_a_model_that_it_has_not_is_refused(address: str) -> None:
    """In one line, with the server's status."""
    captioner = ChatCaptioner.load(
        f"openai:{address}#someone/absent", device="cpu", offline=True, announce=print
    )
    with pytest.raises(MemberUnavailable, match=r"caption.*answered [45]\d\d"):
        captioner.captions(pictures()[:1])
