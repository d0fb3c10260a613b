"""The state of a training, saved atomically, so that an interrupted training resumes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imprompt.core.atomic_files import atomic_write, storage_errors, sync_folder
from imprompt.core.errors import WeightsRejected
from imprompt.encoders.checkpoints import read_pickle

STATE, BEST = "state.pt", "best.safetensors"
_NO_COSINE = -2.0


@dataclass(slots=True)
class TrainingState:
    """A training under way: `epoch` and `step` (of the whole training) come next.

    `best` is the largest cosine so far on the held-out pairs, and `best_epoch` its epoch;
    `rejected` gives the reason for each image that cannot be read; `cosines` has one for each
    finished epoch.
    """

    network: Any
    average: Any
    optimizer: Any
    scaler: Any
    epoch: int = 0
    step: int = 0
    best: float = _NO_COSINE
    best_epoch: int = -1
    cosines: list[float] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)


_PARTS = ("network", "average", "optimizer", "scaler")
_PLAIN = ("epoch", "step", "best", "best_epoch", "cosines", "rejected")


def work_folder(out: Path) -> Path:
    """Return the hidden folder next to `out` that a training works in."""
    return out.with_name(f".{out.name}.training")


def save_state(work: Path, state: TrainingState, *, plan: str) -> None:
    """Save the state of the training `plan`; a kill leaves this state or the one before.

    Raises:
        StorageFull: the disk is full or read-only.
    """
    import torch

    saved = {name: getattr(state, name) for name in _PLAIN}
    saved |= {name: getattr(state, name).state_dict() for name in _PARTS}
    with atomic_write(work / STATE) as file:
        torch.save({"plan": plan, **saved}, file)


def resume_state(work: Path, state: TrainingState, *, plan: str) -> None:
    """Load what `save_state` saved for this plan; without it, `state` is unchanged.

    Raises:
        WeightsRejected: the file is damaged.
    """
    path = work / STATE
    if not path.is_file():
        return
    saved: Any = read_pickle(path)
    if not isinstance(saved, dict) or saved.get("plan") != plan:
        return
    if saved["best_epoch"] >= 0 and not (work / BEST).is_file():
        return  # the checkpoint was published, but the folder was not removed
    try:
        for name in _PARTS:
            getattr(state, name).load_state_dict(saved[name])
        for name in _PLAIN:
            setattr(state, name, saved[name])
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsRejected(
            f"{path} is not the state of this training: {error}.", path=path, hint=f"Remove {work}."
        ) from error


def publish_best(work: Path, out: Path) -> None:
    """Move the best checkpoint to `out` and remove the folder.

    Raises:
        StorageFull: the disk is full or read-only.
    """
    with storage_errors(out):
        (work / BEST).replace(out)
        sync_folder(out.parent)
    shutil.rmtree(work, ignore_errors=True)
