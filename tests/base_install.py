"""What the base install does without torch; `make test-base` makes its environment and runs it.

Every verb that `lite` serves runs in an environment with the packages that pyproject.toml always
asks for, those of `cpu` and `report`, and nothing that brings torch.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evaluation.worlds import THINGS
from tests.server.pictures import png
from tests.server.processes import ROOT, ask, started, until_ready

PYTHON = ROOT / ".venv-base" / "bin" / "python"
ABSENT = ("torch", "torchvision", "timm", "transformers", "sentence_transformers", "open_clip")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder without caches, for all commands of this file."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def index(home: Path) -> Path:
    run(home, "build-index", "--index", home / "index")
    return home / "index"


@pytest.fixture(scope="module")
def pairs(home: Path) -> Path:
    """A picture of each of the things."""
    folder = home / "pairs"
    folder.mkdir()
    for number in range(len(THINGS)):
        (folder / f"{number}.png").write_bytes(png((6 * number, 90, 240 - 6 * number)))
    rows = [{"image": f"{number}.png", "prompt": thing} for number, thing in enumerate(THINGS)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def run(home: Path, *words: str | Path) -> str:
    """Run a command in the base environment, whose paths to other packages are closed."""
    done = subprocess.run(
        [str(PYTHON), "cli.py", *map(str, words)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_the_environment_lacks_torch() -> None:
    """Otherwise the tests of this file would say nothing."""
    code = (
        "import json, sys; from importlib.util import find_spec; "
        "print(json.dumps([name for name in sys.argv[1:] if find_spec(name)]))"
    )
    done = subprocess.run(
        [str(PYTHON), "-c", code, *ABSENT], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_query_search_and_verify(home: Path, index: Path) -> None:
    (home / "picture.png").write_bytes(png())
    (answer,) = lines(run(home, "query", home / "picture.png", "--index", index, "--json"))
    assert len(answer["nearest"]) == 10
    assert answer["prompt"] == ", ".join(phrase["text"] for phrase in answer["phrases"])
    (found,) = lines(run(home, "query", "--text", "a castle", "--index", index, "--json"))
    assert "castle" in found["nearest"][0]["prompt"]
    explained = run(home, "query", home / "picture.png", "--index", index, "--explain", "--json")
    assert lines(explained)[0]["explanation"]
    run(home, "verify", "--index", index)
    run(home, "doctor", "--index", index)


def test_submit(home: Path, index: Path, pairs: Path) -> None:
    run(home, "submit", pairs.parent, "--index", index, "--out", home / "submission.csv")
    rows = (home / "submission.csv").read_text("utf-8").splitlines()
    assert len(rows) == 1 + len(THINGS) * 384


def test_train_evaluate_and_fit_weights(home: Path, index: Path, pairs: Path) -> None:
    """All that is fitted to pairs: a head, the report, the weights of a blend."""
    run(home, "train", "--pairs", pairs, "--out", home / "head.safetensors")
    assert (home / "head.safetensors").stat().st_size
    run(home, "evaluate", "--pairs", pairs, "--index", index, "--json", "--unseen")
    run(
        *(home, "fit-weights", "--pairs", pairs, "--index", index, "--unseen", "--folds", "3"),
        *("--out", home / "mine.json"),
    )
    weights = json.loads((home / "mine.json").read_text("utf-8"))["weights"]
    assert sum(weights.values()) == pytest.approx(1)


def test_serve(home: Path, index: Path) -> None:
    with started(index, home / "log", python=PYTHON) as (server, port):
        until_ready(port, server)
        status, answer = ask(port, "/v1/search", {"text": "a castle"})
    assert status == 200
    assert "castle" in json.dumps(answer)
