"""Trains a small tower and kills itself at a named point; run as a program of its own by `test_kills.py`.

    python tests/ensemble/vit/train_driver.py PAIRS OUT POINT

The points wrap functions of the product from outside. POINT "none" kills nowhere; "signal" says "ready" before the first step.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import ensemble.vit.checkpoint
import ensemble.vit.state
import ensemble.vit.training
from ensemble.vit.schedule import VitSettings
from ensemble.vit.training import VitReport, train_vit

TINY_CLIP = Path(__file__).resolve().parents[2] / "assets" / "tiny-clip"
SETTINGS = VitSettings(
    epochs=4, head_epochs=1, batch_size=12, head_rate=5e-3, learning_rate=5e-4, average_decay=0.9, folds=5, save_steps=3
)


def run(pairs: Path, out: Path) -> VitReport:
    """The training that is broken off and asked for again."""
    return train_vit(pairs, out, backbone=str(TINY_CLIP), settings=SETTINGS, device="cpu", offline=True)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def at_call(owner: Any, name: str, number: int, *, after: bool = False) -> None:
    """Die before, or after, the n-th call of `owner.name`."""
    wrapped, calls = getattr(owner, name), [0]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == number and not after:
            die()
        found = wrapped(*args, **kwargs)
        if calls[0] == number:
            die()
        return found

    setattr(owner, name, wrapper)


def torn(module: Any, number: int) -> None:
    """Die while the n-th file of a module is half written."""
    atomic_write, calls = module.atomic_write, [0]

    @contextmanager
    def half(path: Path) -> Iterator[IO[bytes]]:
        calls[0] += 1
        with atomic_write(path) as file:
            if calls[0] == number:
                file.write(b"half")
                file.flush()
                die()
            yield file

    module.atomic_write = half


def ready() -> None:
    """Tell whoever waits that the training is about to begin."""
    train = ensemble.vit.training._train

    def told(*args: Any) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        train(*args)

    ensemble.vit.training._train = told  # type: ignore[assignment]


POINTS: dict[str, Callable[[], None]] = {
    "before the first step": lambda: at_call(ensemble.vit.training, "_learn", 1),
    "within the first epoch": lambda: at_call(ensemble.vit.training, "_learn", 4),
    "in the middle of a state": lambda: torn(ensemble.vit.state, 3),
    "in the middle of a checkpoint": lambda: torn(ensemble.vit.checkpoint, 2),
    "between a checkpoint and its state": lambda: at_call(ensemble.vit.training, "write_checkpoint", 2, after=True),
    "when all is learned": lambda: at_call(ensemble.vit.training, "publish_best", 1),
    "before the folder is removed": lambda: at_call(shutil, "rmtree", 1),
    "signal": ready,
    "none": lambda: None,
}


if __name__ == "__main__":
    POINTS[sys.argv[3]]()
    run(Path(sys.argv[1]), Path(sys.argv[2]))
