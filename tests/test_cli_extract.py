"""`extract`, and what `query` answers from files alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import Imprompt

ROOT = Path(__file__).resolve().parent.parent
INFOTEXT = (
    "a teapot, steam\nNegative prompt: blur\n"
    "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x8"
)


def image(path: Path, text: str = INFOTEXT) -> Path:
    info = PngInfo()
    if text:
        info.add_text("parameters", text)
    Image.new("RGB", (8, 8), "red").save(path, "PNG", pnginfo=info)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images: two with a prompt, one without."""
    image(tmp_path / "a.png")
    image(tmp_path / "b.png", "a harbour\nSteps: 9, Sampler: Euler, Seed: 2, Size: 8x8")
    image(tmp_path / "c.png", "")
    return tmp_path


def test_a_table(folder: Path, imprompt: Imprompt) -> None:
    """A row an image, with all settings; the table is whole or not there."""
    done = imprompt("extract", folder, "--csv", folder / "out.csv")
    assert done.code == 0
    rows = list(csv.DictReader(io.StringIO((folder / "out.csv").read_text("utf-8"), newline="")))
    assert [(Path(row["image"]).name, row["how"], row["prompt"]) for row in rows] == [
        ("a.png", "exact", "a teapot, steam"),
        ("b.png", "exact", "a harbour"),
        ("c.png", "", ""),
    ]
    assert json.loads(rows[0]["settings"])["cfg_scale"] == "7"
    assert imprompt("extract", folder, "--csv", folder).code == 10
    assert imprompt("extract", folder, "--csv", folder / "a.png" / "x.csv").code == 10


def test_text_files_beside_the_images(folder: Path, imprompt: Imprompt) -> None:
    """One per prompt; an existing one is kept without --force, and the others are written."""
    (folder / "a.txt").write_text("mine")
    done = imprompt("extract", folder, "--txt")
    assert done.code == 3
    assert "a.txt already exists. --force overwrites it." in done.err
    assert (folder / "a.txt").read_text() == "mine"
    assert (folder / "b.txt").read_text() == "a harbour\n"
    assert not (folder / "c.txt").exists()
    assert imprompt("extract", folder, "--txt", "--force").code == 0
    assert (folder / "a.txt").read_text() == "a teapot, steam\n"


def test_options_that_mean_nothing_are_refused(folder: Path, imprompt: Imprompt) -> None:
    """--force without --txt, and --txt without a file to write beside."""
    assert imprompt("extract", folder, "--force").code == 10
    assert imprompt("extract", "-", "--txt").code == 10


def test_the_infotext(folder: Path, imprompt: Imprompt) -> None:
    """As AUTOMATIC1111 wrote it, alone or in JSON."""
    assert imprompt("extract", folder / "a.png", "--infotext").out.strip() == INFOTEXT
    assert (
        imprompt("extract", folder / "a.png", "--infotext", "--json").lines[0]["infotext"]
        == INFOTEXT
    )


@pytest.mark.parametrize(("content", "code"), [(None, 0), (b"no image", 32), (b"", 32)])
def test_standard_input(content: bytes | None, code: int, folder: Path) -> None:
    """An image comes through a pipe; what is none is refused by name."""
    given = (folder / "a.png").read_bytes() if content is None else content
    done = subprocess.run(
        [sys.executable, "cli.py", "extract", "-", "--json"],
        cwd=ROOT,
        input=given,
        capture_output=True,
    )
    assert done.returncode == code, done.stderr
    if code == 0:
        assert json.loads(done.stdout)["prompt"] == "a teapot, steam"
    else:
        assert b"standard input: " in done.stderr


class TestWithoutAnIndex:
    def test_a_file_with_its_prompt_is_answered(self, folder: Path, imprompt: Imprompt) -> None:
        """No index, no model: exact, with a note that no nearest prompts are shown."""
        done = imprompt("query", folder / "a.png", "--json", "--index", folder / "none")
        assert done.code == 0
        assert done.lines[0]["how"] == "exact"
        assert done.lines[0]["nearest"] == []
        assert done.lines[0]["encoder"] is None
        assert "No nearest prompts are shown: There is no index in" in done.err

    def test_what_carries_none_is_the_missing_index(self, folder: Path, imprompt: Imprompt) -> None:
        """Alone, the index's exit code; in a batch it is listed and the others are answered."""
        done = imprompt("query", folder / "c.png", "--index", folder / "none")
        assert done.code == 51
        done = imprompt("query", folder, "--json", "--index", folder / "none")
        assert done.code == 3
        assert [line.get("prompt") for line in done.lines if "error" not in line] == [
            "a teapot, steam",
            "a harbour",
        ]
        assert (
            "c.png carries no prompt, and none can be estimated. There is no index in" in done.err
        )

    def test_a_text_or_an_estimate_needs_one(self, folder: Path, imprompt: Imprompt) -> None:
        """As before."""
        for words in (
            ["--text", "a"],
            [folder / "a.png", "--ignore-metadata"],
            [folder / "a.png", "--text", "b"],
        ):
            assert imprompt("query", *words, "--index", folder / "none").code == 51

    def test_none_is_opened_where_nothing_is_left_to_it(
        self, folder: Path, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`-k 0` wants no neighbours: neither the index nor a model is touched."""
        monkeypatch.setattr("imprompt.commands.query.open_index", None)
        done = imprompt("query", folder / "a.png", folder / "b.png", "-k", "0")
        assert done.code == 0
        assert "No nearest prompts" not in done.err
        assert "a teapot, steam" in done.out

    def test_no_model_is_imported(self, folder: Path) -> None:
        """A process of its own: torch and FAISS stay out."""
        script = (
            "import sys, cli\n"
            f"sys.argv = ['imprompt', 'query', {str(folder / 'a.png')!r}]\n"
            f"sys.argv += ['--index', {str(folder / 'none')!r}]\n"
            "code = cli.run()\n"
            "print(code, sorted({'torch', 'faiss', 'transformers'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "0 []"
