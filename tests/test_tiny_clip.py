"""A CLIP model that really sees, by the ordinary commands, on held-out scenes and texts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.assets.scenes import held_out_scenes, training_batch
from tests.conftest import Imprompt

ROOT = Path(__file__).resolve().parent.parent
N_SCENES = 240
MIN_RECALL_AT_1 = 0.95
MIN_BEGUN_RIGHT = 0.4
MAX_BYTES = 3_000_000


def run(*words: str | Path) -> str:
    """Return the standard output of `imprompt WORD…`."""
    done = subprocess.run(
        [sys.executable, "cli.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The right text by the path of the picture, which lies there as a PNG."""
    folder = tmp_path_factory.mktemp("scenes")
    texts = {}
    for i, (picture, text) in enumerate(held_out_scenes(N_SCENES)):
        path = folder / f"{i:03}.png"
        picture.save(path)
        texts[str(path)] = text
    return texts


@pytest.fixture(scope="module")
def index(
    scenes: dict[str, str], tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index of the scenes' texts, built by the command line."""
    folder = tmp_path_factory.mktemp("index")
    corpus = folder / "texts.txt"
    corpus.write_text("\n".join(scenes.values()), "utf-8")
    # Scenes differ in the order of their words, which is no difference to the folding of near
    # duplicates.
    run(
        "build-index",
        "--corpus",
        corpus,
        "--encoder",
        tiny_clip,
        "--index",
        folder / "index",
        "--near-duplicates",
        "off",
    )
    return folder / "index"


def test_a_picture_finds_its_text(scenes: dict[str, str], index: Path) -> None:
    """Among the texts of all held-out scenes, the nearest to a picture is its own text.

    The prompt is composed of the texts around the picture. It begins with the right one, or its
    first clauses, twice as often as where MiniLM judges alone: that reads "a red ring above a blue
    cross" and the reverse of it as the same.
    """
    answers = [
        json.loads(line)
        for line in run("query", *scenes, "--index", index, "-k", "1", "--json").splitlines()
    ]
    assert [answer["image"] for answer in answers] == list(scenes)
    found = [
        answer["how"] == "estimated" and answer["nearest"][0]["prompt"] == scenes[answer["image"]]
        for answer in answers
    ]
    for answer in answers:
        assert answer["prompt"] == ", ".join(phrase["text"] for phrase in answer["phrases"])
        assert answer["prompt"]
    assert np.mean(found) >= MIN_RECALL_AT_1
    begun = [
        scenes[answer["image"]].lower().startswith(answer["phrases"][0]["text"])
        for answer in answers
    ]
    assert np.mean(begun) >= MIN_BEGUN_RIGHT


def test_a_text_finds_its_own_row(scenes: dict[str, str], index: Path, imprompt: Imprompt) -> None:
    """A text of the index is its own nearest neighbour, at cosine 1 to float16 rounding."""
    text = list(scenes.values())[7]
    (answer,) = imprompt("query", "--text", text, "--index", index, "-k", "1", "--json").lines
    assert answer["nearest"][0]["prompt"] == text
    assert answer["nearest"][0]["score"] == pytest.approx(1, abs=1e-3)


def test_held_out_scenes_have_one_right_text_and_are_never_trained_on() -> None:
    """No two of them mean the same, and no training batch holds one of their texts."""
    texts = {text for _, text in held_out_scenes(N_SCENES)}
    assert len(texts) == N_SCENES
    rng = np.random.default_rng(0)
    trained = [scene for _ in range(50) for scene in training_batch(128, rng)]
    assert not any(scene.held_out for scene in trained)
    assert not texts & {scene.text for scene in trained}


def test_a_seed_draws_the_same_scenes_again() -> None:
    """The scenes are the same in every run, so that later tests are, too."""
    first, second = held_out_scenes(12, seed=3), held_out_scenes(12, seed=3)
    assert [(picture.tobytes(), text) for picture, text in first] == [
        (picture.tobytes(), text) for picture, text in second
    ]
    assert [text for _, text in first] != [text for _, text in held_out_scenes(12, seed=4)]


def test_the_committed_model_is_small(tiny_clip: Path) -> None:
    """Weights and configuration, in the layout of a hub's repository, stay below 3 MB."""
    files = {path.name: path.stat().st_size for path in tiny_clip.iterdir()}
    assert set(files) == {"open_clip_config.json", "open_clip_model.safetensors"}
    assert sum(files.values()) <= MAX_BYTES
