"""SIGKILL while a version is packed or installed: what was there stays, and a rerun does it."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import open_version
from imprompt.store.manifest import Manifest
from tests.indexer.doubles import BagPair, write_corpus
from tests.indexer.share_driver import INSTALLING, PACKING, install, pack
from tests.indexer.small_index import IVF, build_small, manifest_in_service
from tests.indexer.test_kills import environment

pytestmark = pytest.mark.slow

DRIVER = [sys.executable, str(Path(__file__).with_name("share_driver.py"))]


def kill(verb: str, root: Path, point: str, path: Path) -> None:
    """Run the command until it kills itself."""
    done = subprocess.run(
        [*DRIVER, verb, root, point, path],
        env=environment(),
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def kill_at_random(verb: str, root: Path, path: Path, rng: random.Random) -> None:
    """Run the command and kill it from outside, unless it was quicker."""
    with subprocess.Popen(
        [*DRIVER, verb, root, "signal", path], env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.8))
        process.kill()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small(tmp_path_factory.mktemp("built"), index_factory=IVF)


@pytest.fixture(scope="module")
def packed(built: Path) -> Path:
    path = built.parent / "small.imprompt"
    pack(built, path)
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of something else."""
    folder = tmp_path_factory.mktemp("old")
    corpus = write_corpus(folder / "other.txt", 20, salt="old")
    build_index(folder / "index", [parse_corpus(str(corpus))], BagPair())
    return folder / "index"


def in_service(root: Path) -> Manifest:
    """The index opens, checks included."""
    with open_version(root) as version:
        return version.manifest


def finish(built: Path, root: Path, packed: Path) -> None:
    """Repeat the installation; its result is that of an unbroken one."""
    install(root, packed)
    whole, found = manifest_in_service(built), manifest_in_service(root)
    assert (found.rows_digest, found.shards) == (whole.rows_digest, whole.shards)
    assert found.indexes == whole.indexes
    assert not any((root / "staging").iterdir())


@pytest.mark.parametrize("point", INSTALLING)
def test_a_kill_while_it_is_installed(
    point: str, built: Path, packed: Path, old: Path, tmp_path: Path
) -> None:
    """The old index answers until the new one is in service; the same command does the rest."""
    root = Path(shutil.copytree(old, tmp_path / "index"))
    before = in_service(root)
    kill("install", root, point, packed)
    expected = in_service(built) if point == "after publishing" else before
    assert in_service(root).rows_digest == expected.rows_digest
    finish(built, root, packed)


@pytest.mark.parametrize("point", PACKING)
def test_a_kill_while_it_is_packed(point: str, built: Path, packed: Path, tmp_path: Path) -> None:
    """The file that was there stays whole, and the next call leaves nothing beside the new one."""
    out = tmp_path / "out.imprompt"
    out.write_bytes(b"what was there")
    kill("pack", built, point, out)
    assert out.read_bytes() == b"what was there"
    pack(built, out)
    assert out.read_bytes() == packed.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out.imprompt"]


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_random(seed: int, built: Path, packed: Path, old: Path, tmp_path: Path) -> None:
    """Killed up to three times at any moment, then finished: always readable, same result."""
    rng = random.Random(seed)  # noqa: S311 moments, not secrets
    root = Path(shutil.copytree(old, tmp_path / "index"))
    digests = {in_service(root).rows_digest, in_service(built).rows_digest}
    out = tmp_path / "packed" / "out.imprompt"
    for _ in range(rng.randint(1, 3)):
        kill_at_random("install", root, packed, rng)
        assert in_service(root).rows_digest in digests
        kill_at_random("pack", built, out, rng)
        assert not out.exists() or out.read_bytes() == packed.read_bytes()
    finish(built, root, packed)
    pack(built, out)
    assert [path.name for path in out.parent.iterdir()] == ["out.imprompt"]
