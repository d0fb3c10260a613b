"""SIGKILL at any moment of a build: the old index answers, and a rerun gives the same bytes."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.manifest import Manifest
from tests.indexer.doubles import BagPair, write_corpus
from tests.indexer.kill_driver import POINTS, SHARD_ROWS, build

ROWS = 600
REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = [sys.executable, str(Path(__file__).with_name("kill_driver.py"))]
BEGUN = (
    "before a shard",
    "in the middle of a shard",
    "between a shard and its journal line",
    "in the middle of a journal line",
)
ENCODED = tuple(POINTS)[tuple(POINTS).index("before publishing") :]
FINISHED_SHARDS = {**dict.fromkeys(BEGUN, 2), **dict.fromkeys(ENCODED, 1000)}
"""How many shards are not encoded again after a kill at a point; none before encoding."""
NAMED_POINTS = [point for point in POINTS if point != "none"]


@dataclass(frozen=True, slots=True)
class BuildCase:
    """The corpus to build, another index in service, and the result of an unbroken build."""

    corpus: Path
    old: Path
    old_digest: str
    whole: Manifest


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> BuildCase:
    folder = tmp_path_factory.mktemp("bench")
    corpus = write_corpus(folder / "corpus.txt", ROWS)
    with corpus.open("a") as file:  # and thirty near duplicates, of which one is kept
        file.writelines(
            f"{' '.join(f'word{i}' for i in range(20))} {number}\n" for number in range(30)
        )
    other = write_corpus(folder / "other.txt", 40, salt="old")
    old = build(folder / "old", other, BagPair()).manifest
    whole = build(folder / "whole", corpus, BagPair()).manifest
    return BuildCase(corpus, folder / "old", old.rows_digest, whole)


@pytest.fixture
def root(case: BuildCase, tmp_path: Path) -> Path:
    """An index that is in service while the new one is built."""
    return Path(shutil.copytree(case.old, tmp_path / "index"))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def assert_in_service(root: Path, *digests: str) -> None:
    """The index opens, checks included, and holds one of these corpora."""
    with open_version(root) as version:
        assert version.manifest.rows_digest in digests
        assert version.prompts.get_many([0])[0].text.startswith("prompt 0")


def assert_as_unbroken(root: Path, case: BuildCase) -> None:
    """Rows and vector bytes are those of the unbroken build; nothing else is left."""
    assert verify(root) == []
    with open_version(root) as version:
        found = version.manifest
    assert found.rows_digest == case.whole.rows_digest
    assert found.funnel == case.whole.funnel
    assert [shard.sha256 for shard in found.shards["bag"]] == [
        shard.sha256 for shard in case.whole.shards["bag"]
    ]
    assert found.plan_sha256 == case.whole.plan_sha256
    assert not any((root / "staging").iterdir())


def test_there_are_at_least_ten_named_points() -> None:
    """Reading, numbering, shards, journal, manifest and publishing each have their points."""
    assert len(NAMED_POINTS) >= 10


@pytest.mark.parametrize("point", NAMED_POINTS)
def test_a_kill_at_a_named_point(point: str, root: Path, case: BuildCase) -> None:
    """The old index answers after the kill, or the new one if published; a rerun completes."""
    killed = subprocess.run(
        [*DRIVER, root, case.corpus, point],
        env=environment(),
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert_in_service(
        root, case.whole.rows_digest if point == "after publishing" else case.old_digest
    )
    report = build(root, case.corpus, BagPair())
    assert_as_unbroken(root, case)
    assert report.encoded == max(case.whole.rows - SHARD_ROWS * FINISHED_SHARDS.get(point, 0), 0)


def test_a_finished_shard_that_was_damaged_is_done_again(root: Path, case: BuildCase) -> None:
    """On going on, listed shards are hashed: one with a flipped byte is encoded again."""
    subprocess.run(
        [*DRIVER, root, case.corpus, "before publishing"],
        env=environment(),
        check=False,
        capture_output=True,
        timeout=120,
    )
    shard = next((root / "staging").glob("*/vectors/bag/00001.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    pair = BagPair()
    build(root, case.corpus, pair)
    assert pair.texts.seen == [SHARD_ROWS]
    assert_as_unbroken(root, case)


@pytest.mark.parametrize("limit_bytes", [100, 100_000, 300_000])
def test_a_full_disk(limit_bytes: int, root: Path, case: BuildCase) -> None:
    """A full disk ends the build with `StorageFull`; the old index answers, a rerun completes.

    The limit on the length of a file holds for root too, and stops the plan, the staged rows or the
    numbered ones.
    """
    limits = (limit_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    ended = subprocess.run(
        [*DRIVER, root, case.corpus, "none"],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
    )
    assert ended.stderr.splitlines()[-1].startswith("imprompt.core.errors.StorageFull"), (
        ended.stderr
    )
    assert_in_service(root, case.old_digest)
    build(root, case.corpus, BagPair())
    assert_as_unbroken(root, case)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_kills_at_random(seed: int, root: Path, case: BuildCase) -> None:
    """Killed up to three times at any moment, then finished: always readable, same result."""
    rng = random.Random(seed)  # noqa: S311 moments, not secrets
    for _ in range(rng.randint(1, 3)):
        with subprocess.Popen(
            [*DRIVER, root, case.corpus, "signal"], env=environment(), stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 1.2))
            process.kill()
        assert_in_service(root, case.old_digest, case.whole.rows_digest)
    build(root, case.corpus, BagPair())
    assert_as_unbroken(root, case)
