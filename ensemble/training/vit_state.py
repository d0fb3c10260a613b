"""A training that was broken off goes on: what it has learned so far, on disk, whole or not at all."""

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
class Run:
    """A training on its way: `epoch` and `step` (of the whole training) are those that come next.

    `best` is the largest cosine so far on what was held out, and `best_epoch` its epoch; `rejected`
    are images that cannot be read with the reason; `cosines` has one for each finished epoch.
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
    """The hidden folder beside `out` that a training works in."""
    return out.with_name(f".{out.name}.training")


def save_run(work: Path, run: Run, *, plan: str) -> None:
    """Keep the run; a kill at any moment leaves this one or the one before.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    import torch

    held = {name: getattr(run, name) for name in _PLAIN}
    held |= {name: getattr(run, name).state_dict() for name in _PARTS}
    with atomic_write(work / STATE) as file:
        torch.save({"plan": plan, **held}, file)


def resume_run(work: Path, run: Run, *, plan: str) -> bool:
    """Take up what `save_run` kept of the same plan; False, and `run` as it was, where there is nothing of it.

    Raises:
        WeightsRejected: the file is damaged.
    """
    path = work / STATE
    if not path.is_file():
        return False
    held: Any = read_pickle(path)
    if not isinstance(held, dict) or held.get("plan") != plan:
        return False
    if held["best_epoch"] >= 0 and not (work / BEST).is_file():
        return False  # it was published, and then the folder was not removed
    try:
        for name in _PARTS:
            getattr(run, name).load_state_dict(held[name])
        for name in _PLAIN:
            setattr(run, name, held[name])
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsRejected(
            f"{path} does not hold this training: {error}.", path=path, hint=f"Remove {work}."
        ) from error
    return True


def publish_best(work: Path, out: Path) -> None:
    """Put the best checkpoint in the place of `out` and remove the folder.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    with storage_errors(out):
        (work / BEST).replace(out)
        sync_folder(out.parent)
    shutil.rmtree(work, ignore_errors=True)
