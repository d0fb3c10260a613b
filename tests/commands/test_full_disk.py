"""A disk that is full at any write of a command: one line, the old index, nothing half-written."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imprompt.core.errors import PartialFailure, StorageFull
from imprompt.store.integrity import verify
from imprompt.store.publish import current_name
from tests.commands.test_filter_options import PAINTED, build
from tests.commands.test_query_folder import carrying, plain
from tests.commands.test_watch import ended, watching
from tests.conftest import Done, Imprompt
from tests.disks import fill, mounted

pytestmark = pytest.mark.slow

FREE = (0, 12_000, 60_000, 300_000, 600_000, 900_000, 1_500_000, 2_500_000, 4_000_000)
Run = Callable[[], Done]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index, further prompts and two images."""
    folder = tmp_path_factory.mktemp("prepared")
    build(folder, PAINTED)
    lines = [f"prompt {i} of a glass {'bowl' if i % 2 else 'fox'}, warm light" for i in range(40)]
    (folder / "more.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "images").mkdir()
    carrying(folder / "images" / "a.png", "a blue bowl, " * 500)
    plain(folder / "images" / "b.png")
    return folder


@pytest.fixture
def disk(tmp_path: Path, prepared: Path) -> Iterator[Path]:
    """A file system of 24 MB that holds a copy of it."""
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, megabytes=24) as found:
        shutil.copytree(prepared, found, dirs_exist_ok=True)
        yield found


COMMANDS: dict[str, list[str]] = {
    "build": ["build-index", "--corpus", "DISK/more.txt", "--replace"],
    "add": ["add", "DISK/more.txt"],
    "remove": ["remove", "--where", "text LIKE '%fox%'"],
    "reindex": ["reindex", "--index-factory", "IVF2,SQ8"],
    "pack": ["pack", "DISK/out.imprompt"],
    "install": ["install", "PREPARED/packed.imprompt", "--replace"],
    "submit": ["submit", "DISK/images", "--out", "DISK/out.csv"],
    "query --csv": ["query", "DISK/images", "--csv", "DISK/out.csv"],
}
OUTPUTS = ("out.imprompt", "out.csv")


@pytest.fixture(scope="module")
def packed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of another index."""
    from imprompt.store.index_version import open_version
    from imprompt.store.packs.packing import pack_version

    other = build(tmp_path_factory.mktemp("other"), [*PAINTED, "a teapot", "a glass fox"])
    with open_version(other) as version:
        pack_version(version, prepared / "packed.imprompt")
    return prepared / "packed.imprompt"


def visible(place: Path) -> set[str]:
    """Every file of the disk but the ballast and what an interrupted command goes on with."""
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    return {
        name for name in found if not name.startswith(("ballast", "index/staging/", ".out.csv."))
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("packed")
def test_each_command(command: str, imprompt: Imprompt, prepared: Path, disk: Path) -> None:
    """With ever more space left, until it suffices: each failure is one line with code 57.

    What was there is unchanged and whole after each, and in the end the command does its work.
    """
    words = [
        word.replace("DISK", str(disk)).replace("PREPARED", str(prepared))
        for word in COMMANDS[command]
    ]
    words += ["--index", str(disk / "index"), "--quiet"]
    before, version = visible(disk), current_name(disk / "index")
    failures = 0
    for free_bytes in FREE:
        ballast = fill(disk, free_bytes=free_bytes)
        done = imprompt(*words)
        ballast.unlink()
        if done.code == 0:
            break
        failures += 1
        assert done.code == StorageFull.exit_code, done.err
        assert len(done.err.splitlines()) == 1, done.err
        assert done.err.startswith("error: "), done.err
        assert "No space left on device" in done.err or " free" in done.err, done.err
        assert current_name(disk / "index") == version
        assert visible(disk) == before
    assert failures >= 2
    assert done.code == 0, done.err
    assert verify(disk / "index") == []
    assert [*disk.rglob("*.tmp*")] == []


def test_text_files(imprompt: Imprompt, disk: Path) -> None:
    """`query --txt` answers every image, says which file could not be written, and leaves none."""
    ballast = fill(disk, free_bytes=0)
    done = imprompt("query", disk / "images", "--txt", "--index", disk / "index", "--quiet")
    ballast.unlink()
    assert done.code in (PartialFailure.exit_code, StorageFull.exit_code)
    assert f"{disk / 'images' / 'a.txt'} cannot be written: No space left on device" in done.err
    assert sorted(path.name for path in (disk / "images").iterdir()) == ["a.png", "b.png"]


def test_text_files_of_watch(disk: Path) -> None:
    """`watch --txt` goes on: with space again the next image gets its file."""
    ballast = fill(disk, free_bytes=0)
    images = disk / "images"
    (images / "b.png").unlink()
    with watching(images, "--index", disk / "index", "--txt", "--existing") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(f"{images / 'a.png'}: ")
        assert "a.txt cannot be written" in process.stderr.readline()
        ballast.unlink()
        carrying(images / "c.png", "a red fox")
        assert process.stdout.readline().startswith(f"{images / 'c.png'}: ")
        code, _, err = ended(process, signal.SIGINT)
    assert code == PartialFailure.exit_code
    assert f"{images / 'a.txt'} cannot be written: No space left on device" in err
    assert "Traceback" not in err
    assert sorted(path.name for path in images.iterdir() if path.suffix != ".png") == ["c.txt"]
    assert (images / "c.txt").read_text("utf-8") == "a red fox\n"
