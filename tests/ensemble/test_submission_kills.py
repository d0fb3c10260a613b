"""SIGKILL at any moment of a submission: nothing partial, and the same bytes after a rerun."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ensemble.builders import save_pictures
from tests.ensemble.submit_driver import BATCH_IMAGES, POINTS, Counting, run

PICTURES = 22
FILES = PICTURES + 1
"""One of them cannot be read: it is never shown to a member."""
REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = [sys.executable, str(Path(__file__).with_name("submit_driver.py"))]
KEPT = {
    "within the first batch": 0,
    "in the middle of a batch's file": 2 * BATCH_IMAGES,
    "between batches": 3 * BATCH_IMAGES,
    "before the rows are gathered": FILES,
    "in the middle of the submission": FILES,
    "before the batches are removed": FILES,
}


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """Images, and the files that an uninterrupted run writes for them."""

    folder: Path
    submission: bytes
    prompts: bytes


@pytest.fixture(scope="module")
def reference(index_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ReferenceRun:
    place = tmp_path_factory.mktemp("reference")
    save_pictures(place / "images", PICTURES)
    (place / "images" / "500bad.png").write_text("no picture", "utf-8")
    run(index_root, place / "images", place / "out.csv", Counting())
    return ReferenceRun(
        place / "images", (place / "out.csv").read_bytes(), (place / "prompts.csv").read_bytes()
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def kill(
    point: str, index_root: Path, reference: ReferenceRun, out: Path
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*DRIVER, index_root, reference.folder, out, point],
        env=environment,
        check=False,
        capture_output=True,
        timeout=120,
    )


def assert_as_unbroken(out: Path, reference: ReferenceRun) -> None:
    assert out.read_bytes() == reference.submission
    assert out.with_name("prompts.csv").read_bytes() == reference.prompts
    assert [
        path.name
        for path in out.parent.iterdir()
        if path.name.startswith(f".{out.name}.") and path.is_dir()
    ] == []


def test_every_point_is_named() -> None:
    """The table of what a kill costs has a line for each point."""
    assert set(KEPT) == set(POINTS) - {"none"}


@pytest.mark.parametrize("point", KEPT)
def test_a_kill_at_a_named_point(
    point: str, index_root: Path, reference: ReferenceRun, tmp_path: Path
) -> None:
    """The submission is absent until it is whole; finished batches are not predicted again."""
    out = tmp_path / "out.csv"
    killed = kill(point, index_root, reference, out)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists() or out.read_bytes() == reference.submission
    member = Counting()
    report = run(index_root, reference.folder, out, member)
    assert_as_unbroken(out, reference)
    assert report.resumed == KEPT[point]
    assert sum(member.batches) + report.resumed in (PICTURES, FILES)


def test_a_batch_that_was_damaged_is_answered_again(
    index_root: Path, reference: ReferenceRun, tmp_path: Path
) -> None:
    """A finished batch carries its own sha256: with one bit flipped it counts as unfinished."""
    out = tmp_path / "out.csv"
    kill("before the rows are gathered", index_root, reference, out)
    batch = next(tmp_path.glob(".out.csv.*/000001.batch"))
    content = bytearray(batch.read_bytes())
    content[-1] ^= 1
    batch.write_bytes(content)
    member = Counting()
    run(index_root, reference.folder, out, member)
    assert sum(member.batches) == BATCH_IMAGES
    assert_as_unbroken(out, reference)


def test_a_changed_image_is_not_taken_from_the_broken_run(
    index_root: Path, reference: ReferenceRun, tmp_path: Path
) -> None:
    """Another size or time of a file makes another job, and the interrupted one is removed."""
    save_pictures(tmp_path / "images", 6)
    out = tmp_path / "out.csv"
    own = ReferenceRun(tmp_path / "images", b"", b"")
    assert kill("before the rows are gathered", index_root, own, out).returncode == -signal.SIGKILL
    save_pictures(tmp_path / "images", 7)
    member = Counting()
    assert run(index_root, own.folder, out, member).resumed == 0
    assert sum(member.batches) == 7
    assert not list(tmp_path.glob(".out.csv.*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_kills_at_random(
    seed: int, index_root: Path, reference: ReferenceRun, tmp_path: Path
) -> None:
    """Killed up to three times at random, then finished: the bytes of an uninterrupted run."""
    rng = random.Random(seed)  # noqa: S311 moments, not secrets
    out = tmp_path / "out.csv"
    for _ in range(rng.randint(1, 3)):
        words = [*DRIVER, str(index_root), str(reference.folder), str(out), "signal"]
        with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.8))
            process.kill()
        assert not out.exists() or out.read_bytes() == reference.submission
    run(index_root, reference.folder, out, Counting())
    assert_as_unbroken(out, reference)
