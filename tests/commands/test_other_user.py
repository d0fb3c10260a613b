"""An index of another user: it can be read, and what may not be written is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imprompt.core.errors import StorageFull
from tests.commands.test_filter_options import PAINTED, build
from tests.commands.test_query_folder import carrying

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STRANGER = 54_321


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index, an older version in it, an image and further prompts."""
    folder = tmp_path_factory.mktemp("shared")
    build(folder, PAINTED)
    carrying(folder / "a.png", "a blue bowl")
    (folder / "more.txt").write_text("a glass of wine at dusk\n", "utf-8")
    return folder


def as_other_user(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("other_user.py"))],
        input=json.dumps(commands),
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes when anything is written, renamed, removed or given other rights."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        facts = path.lstat()
        found[str(path)] = (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_mode)
    return found


@pytest.fixture
def of_a_stranger(painted: Path, tmp_path: Path) -> Path:
    """A copy that belongs to another user; where nobody can be given files, one without `w`."""
    folder = Path(shutil.copytree(painted, tmp_path / "theirs"))
    for path in [folder, *folder.rglob("*")]:
        if os.geteuid() == 0:
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.chown(path, STRANGER, STRANGER)
        else:
            path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def test_reading_needs_no_right_to_write(of_a_stranger: Path, tmp_path: Path) -> None:
    """`query`, `verify`, `info`, `extract` and `pack` to elsewhere work, and nothing is touched."""
    place, root = of_a_stranger, str(of_a_stranger / "index")
    before = stamps(place)
    done = as_other_user(
        [
            ["query", "--text", "a red fox", "--index", root, "--json"],
            ["query", str(place / "a.png"), "--index", root, "--json"],
            ["verify", "--index", root],
            ["info", "--index", root, "--json"],
            ["extract", str(place / "a.png")],
            ["pack", str(tmp_path / "mine.imprompt"), "--index", root, "--quiet"],
        ]
    )
    assert [code for code, _, _ in done] == [0] * 6, done
    assert json.loads(done[0][1])["nearest"][0]["prompt"].startswith("a red fox")
    assert json.loads(done[1][1])["prompt"] == "a blue bowl"
    assert "a blue bowl" in done[4][1]
    assert (tmp_path / "mine.imprompt").stat().st_size > 1000
    assert stamps(place) == before


def test_what_may_not_be_written_is_said(of_a_stranger: Path) -> None:
    """Each command that writes ends with one line that names the file, the right and the remedy."""
    place, root = of_a_stranger, str(of_a_stranger / "index")
    before = stamps(place)
    more = str(place / "more.txt")
    commands = [
        ["build-index", "--corpus", more, "--replace"],
        ["add", more],
        ["remove", "--where", "text LIKE '%fox%'"],
        ["dedupe", "--cosine", "0.9"],
        ["reindex", "--index-factory", "IVF2,SQ8"],
        ["gc"],
    ]
    done = as_other_user([[*words, "--index", root, "--quiet"] for words in commands])
    done += as_other_user(
        [
            ["query", str(place / "a.png"), "--csv", str(place / "out.csv"), "--index", root, "-q"],
            ["pack", str(place / "out.imprompt"), "--index", root, "--quiet"],
        ]
    )
    for code, _, err in done:
        assert code == StorageFull.exit_code, err
        assert len(err.splitlines()) == 1, err
        assert str(place) in err, err
        assert "cannot be written: Permission denied. Ask its owner for the right to write" in err
    assert stamps(place) == before
