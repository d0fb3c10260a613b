"""The wheel and the sdist hold every room, and the wheel answers a query without the clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of what git tracks."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    tracked = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        .stdout.decode()
        .split("\0")
    )
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    return folder


def test_both_archives_hold_the_rooms_and_their_data_and_no_tests(archives: Path) -> None:
    """The trained head and the starter corpus vocabularies are shipped; tests are not."""
    (wheel,), (sdist,) = archives.glob("*.whl"), archives.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "cli.py",
        "encoders/lite_head.safetensors",
        "indexer/readers/starter.toml",
        "store/manifest.py",
        "server/page/page.css",
    ):
        assert f"imprompt/{name}" in in_wheel
        assert name in in_sdist
    assert not [
        name
        for name in in_wheel
        if name.startswith(
            ("imprompt/tests/", "imprompt/benchmarks/", "imprompt/examples/", "imprompt/docs/")
        )
    ]


def test_the_wheel_builds_an_index_and_answers_a_query(archives: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, with nothing of the clone in reach, the two verbs work."""
    (wheel,) = archives.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    (tmp_path / "prompts.txt").write_text(
        "a red fox in the snow\na bowl of ramen\na lighthouse at dusk\n", "utf-8"
    )

    def imprompt(*words: str) -> str:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tmp_path / "installed"),
            "PYTHONSAFEPATH": "1",
        }
        script = (
            f"from imprompt import cli; assert cli.__file__.startswith({str(tmp_path)!r}); "
            "cli.main()"
        )
        command = [sys.executable, "-c", script, *words, "--index", str(tmp_path / "index")]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    imprompt("build-index", "--corpus", "prompts.txt")
    answer = json.loads(imprompt("query", "--text", "noodle soup", "-k", "1", "--json"))
    assert answer["prompt"] == "a bowl of ramen"
