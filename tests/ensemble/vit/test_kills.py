"""SIGKILL at any moment of a training: nothing partial, and the same bytes after a rerun."""

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

from tests.ensemble.vit.drawings import drawn_pairs
from tests.ensemble.vit.train_driver import POINTS, SETTINGS, run

ROOT = Path(__file__).resolve().parents[3]
DRIVER = [sys.executable, str(Path(__file__).with_name("train_driver.py"))]
KEPT = {
    "before the first step": 0,
    "within the first epoch": 3,
    "in the middle of a state": 4,
    "in the middle of a checkpoint": 6,
    "between a checkpoint and its state": 6,
    "when all is learned": 16,
    "before the folder is removed": 16,
}
"""Steps of 16 that are not repeated: a state is saved every third step and each epoch of four."""
IN_THE_ORDINARY_SUITE = ("within the first epoch",)


@dataclass(frozen=True, slots=True)
class ReferenceTraining:
    """Pairs, and the tower of an uninterrupted training."""

    pairs: Path
    tower: bytes


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ReferenceTraining:
    folder = tmp_path_factory.mktemp("reference")
    pairs = drawn_pairs(folder / "pairs", each=2)
    report = run(pairs, folder / "tower.safetensors")
    assert (report.steps, report.resumed_steps, report.epochs) == (16, 0, SETTINGS.epochs)
    return ReferenceTraining(pairs, (folder / "tower.safetensors").read_bytes())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def assert_as_unbroken(out: Path, reference: ReferenceTraining) -> None:
    assert out.read_bytes() == reference.tower
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    "point",
    [
        point if point in IN_THE_ORDINARY_SUITE else pytest.param(point, marks=pytest.mark.slow)
        for point in KEPT
    ],
)
def test_a_kill_at_a_named_point(point: str, reference: ReferenceTraining, tmp_path: Path) -> None:
    """At most three steps are repeated; the weights equal an uninterrupted training's bits."""
    out = tmp_path / "tower.safetensors"
    killed = subprocess.run(
        [*DRIVER, reference.pairs, out, point],
        env=environment(),
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    published = point == "before the folder is removed"
    assert out.exists() == published
    report = run(reference.pairs, out)
    assert report.resumed_steps == (0 if published else KEPT[point])
    assert_as_unbroken(out, reference)


def test_every_point_is_named() -> None:
    """The table of what a kill costs has a line for each point."""
    assert set(KEPT) == set(POINTS) - {"none", "signal"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_kills_at_random(seed: int, reference: ReferenceTraining, tmp_path: Path) -> None:
    """Killed up to three times at random, then finished: the bytes of an uninterrupted training."""
    rng = random.Random(seed)  # noqa: S311 moments, not secrets
    out = tmp_path / "tower.safetensors"
    for _ in range(rng.randint(1, 3)):
        with subprocess.Popen(
            [*DRIVER, reference.pairs, out, "signal"], env=environment(), stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 1.5))
            process.kill()
        assert not out.exists() or out.read_bytes() == reference.tower
    run(reference.pairs, out)
    assert_as_unbroken(out, reference)


@pytest.mark.slow
def test_other_pairs_do_not_go_on_with_the_work(
    reference: ReferenceTraining, tmp_path: Path
) -> None:
    """What was kept of a training belongs to its pairs and settings; another one begins anew."""
    out = tmp_path / "tower.safetensors"
    pairs = drawn_pairs(tmp_path / "own", each=2)
    subprocess.run(
        [*DRIVER, pairs, out, "within the first epoch"],
        env=environment(),
        check=False,
        capture_output=True,
    )
    os.utime(tmp_path / "own" / "0000.png", (1, 1))
    assert run(pairs, out).resumed_steps == 0
    assert out.read_bytes() == reference.tower, "the same pictures, after all"
