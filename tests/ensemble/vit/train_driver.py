"""Trains a small tower and kills itself at a named point; run by `test_kills.py`.

    python tests/ensemble/vit/train_driver.py PAIRS OUT POINT

The points wrap functions of the product from outside. POINT "none" kills nowhere; "signal" says
"ready" before the first step.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imprompt.ensemble.training.vit_state
import imprompt.ensemble.training.vit_trainer
import imprompt.ensemble.training.vit_training
import imprompt.ensemble.vit.vit_checkpoint
from imprompt.ensemble.training.vit_schedule import VitSettings
from imprompt.ensemble.training.vit_trainer import VitTrainer
from imprompt.ensemble.training.vit_training import VitReport, train_vit
from tests.killing import after, before, in_the_middle_of_a_file

TINY_CLIP = Path(__file__).resolve().parents[2] / "assets" / "tiny-clip"
SETTINGS = VitSettings(
    epochs=4,
    head_epochs=1,
    batch_size=12,
    head_rate=5e-3,
    learning_rate=5e-4,
    average_decay=0.9,
    folds=5,
    save_steps=3,
)


def run(pairs: Path, out: Path) -> VitReport:
    """The training that is broken off and asked for again."""
    return train_vit(
        pairs, out, backbone=str(TINY_CLIP), settings=SETTINGS, device="cpu", offline=True
    )


def ready() -> None:
    """Tell whoever waits that the training is about to begin."""
    train = VitTrainer.train

    def told(*args: Any) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        train(*args)

    VitTrainer.train = told  # type: ignore[assignment, method-assign]


POINTS: dict[str, Callable[[], None]] = {
    "before the first step": lambda: before(VitTrainer, "_learn"),
    "within the first epoch": lambda: before(VitTrainer, "_learn", call=4),
    "in the middle of a state": lambda: in_the_middle_of_a_file(
        imprompt.ensemble.training.vit_state, call=3
    ),
    "in the middle of a checkpoint": lambda: in_the_middle_of_a_file(
        imprompt.ensemble.vit.vit_checkpoint, call=2
    ),
    "between a checkpoint and its state": lambda: after(
        imprompt.ensemble.training.vit_trainer, "write_checkpoint", call=2
    ),
    "when all is learned": lambda: before(imprompt.ensemble.training.vit_training, "publish_best"),
    "before the folder is removed": lambda: before(shutil, "rmtree"),
    "signal": ready,
    "none": lambda: None,
}


if __name__ == "__main__":
    POINTS[sys.argv[3]]()
    run(Path(sys.argv[1]), Path(sys.argv[2]))
