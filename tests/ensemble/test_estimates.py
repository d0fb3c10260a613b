"""Answers with their explanation, by the library and by the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.core.errors import ImpromptError, QueryError
from imprompt.ensemble.explanation import ExplainedAnswer, ask_explained
from imprompt.retriever import Question, Retriever
from imprompt.store.index_version import IndexVersion
from tests.conftest import Imprompt
from tests.ensemble.builders import WORDS, FixedMember, ensemble, picture

ROOT = Path(__file__).resolve().parents[2]


def saved(folder: Path, colour: str, *, prompt: str = "") -> Path:
    """A picture as a file, with a prompt in it where one is given."""
    text = PngInfo()
    if prompt:
        text.add_text(
            "parameters",
            f"{prompt}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64",
        )
    path = folder / f"{colour}{'-told' if prompt else ''}.png"
    picture(colour).save(path, pnginfo=text)
    return path


def test_bad_and_good_questions_keep_their_places(version: IndexVersion, tmp_path: Path) -> None:
    """Each question has its own result; a bad one does not shift the explanations after it."""
    members = ensemble(
        version, FixedMember("sayer", "red", mute=True), weights={"knn": 1, "sayer": 1e-9}
    )
    (tmp_path / "bad.png").write_text("no picture", "utf-8")
    asked = [
        Question(image=tmp_path / "bad.png"),
        Question(image=saved(tmp_path, "blue")),
        Question(text="red"),
        Question(image=saved(tmp_path, "red", prompt="an owl of brass")),
        Question(image=saved(tmp_path, "red")),
    ]
    retriever = Retriever(version, members.neighbourhood.encoder)
    bad, blue, text, owl, red = ask_explained(asked, 3, retriever=retriever, ensemble=members)
    assert isinstance(bad, ImpromptError)
    assert isinstance(text, QueryError)
    assert isinstance(blue, ExplainedAnswer)
    assert isinstance(owl, ExplainedAnswer)
    assert isinstance(red, ExplainedAnswer)
    assert "blue" in blue.answer.prompt
    assert "red" in red.answer.prompt
    (alone,) = members.predict([picture("blue")])
    np.testing.assert_allclose(blue.explanation.vector, alone.vector, atol=1e-6)
    assert owl.answer.prompt == "an owl of brass"
    np.testing.assert_array_equal(owl.explanation.vector, WORDS.encode(["an owl of brass"])[0])


def test_query_with_proof_shows_every_vote(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """Shares add up to 1, the vector is a unit of 384 numbers, and it says "not calibrated"."""
    path = saved(tmp_path, "red")
    done = imprompt("query", path, "--explain", "--json", "-k", "2", "--index", lite_index)
    assert done.code == 0, done.err
    (answer,) = done.lines
    explanation = answer["explanation"]
    assert explanation["blend"] == "default"
    assert (explanation["confidence"], explanation["calibration"], explanation["left_out"]) == (
        None,
        "not calibrated",
        [],
    )
    assert sum(part["share"] for part in explanation["contributions"]) == pytest.approx(1)
    assert set(explanation["contributions"][0]) == {"member", "share", "cosine", "text"}
    assert np.linalg.norm(explanation["vector"]) == pytest.approx(1, abs=1e-5)
    assert len(explanation["vector"]) == 384
    assert len(answer["neighbours"]) == 2
    shown = imprompt("query", path, "--explain", "--index", lite_index).out
    for words in (
        "not calibrated",
        "Contributions to blend default",
        "knn",
        "vit",
        "nearest prompts",
    ):
        assert words in shown


def test_without_proof_the_answer_is_as_before(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """A plain query says nothing of an ensemble; its options without it are refused."""
    path = saved(tmp_path, "red")
    (answer,) = imprompt("query", path, "--json", "--index", lite_index).lines
    assert "explanation" not in answer
    assert answer["prompt"] == answer["neighbours"][0]["prompt"]
    for words in (["--degrade"], ["--blend", "notebook"]):
        assert imprompt("query", path, *words, "--index", lite_index).code == 10
    assert imprompt("query", "--explain", "--text", "red", "--index", lite_index).code == 10


def test_a_missing_member_stops_or_is_left_out(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """The error says what to fetch; with --degrade answer and exit code say what is missing."""
    blend_config = tmp_path / "blend_config.json"
    blend_config.write_text('{"name": "mine", "weights": {"vit": 1, "ofa": 1}}', "utf-8")
    words = [
        "query",
        saved(tmp_path, "red"),
        "--explain",
        "--offline",
        "--blend",
        blend_config,
        "--index",
        lite_index,
    ]
    done = imprompt(*words)
    assert done.code == 60
    assert "ofa-large-caption" in done.err
    assert "Fetch" in done.err
    done = imprompt(*words, "--degrade", "--json")
    assert done.code == 4
    (answer,) = done.lines
    assert [(part["member"], part["share"]) for part in answer["explanation"]["contributions"]] == [
        ("vit", 1.0)
    ]
    assert [left["member"] for left in answer["explanation"]["left_out"]] == ["ofa"]
    assert "without ofa" in done.err
    assert "without ofa" in imprompt(*words, "--degrade").out


def test_a_single_bad_image_is_its_own_error(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """As without a explanation."""
    (tmp_path / "bad.png").write_text("no", "utf-8")
    assert imprompt("query", tmp_path / "bad.png", "--explain", "--index", lite_index).code == 32


def test_a_plain_query_imports_no_ensemble(lite_index: Path, tmp_path: Path) -> None:
    """A plain query imports nothing of the ensemble."""
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    script = (
        "import sys\n"
        "sys.argv = ['cli', 'query', sys.argv[1], '--index', sys.argv[2], '--quiet', '--json']\n"
        "from imprompt import cli\n"
        "assert cli.run() == 0\n"
        "heavy = ('imprompt.ensemble', 'transformers', 'timm', 'torchvision')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "x.png"), str(lite_index)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
