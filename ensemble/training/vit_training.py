"""Training of an image tower on pairs: resumable, and written to one file at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import ConfigError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.metrics import Estimate
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.encoders.minilm import load_minilm
from imprompt.encoders.torch_devices import choose_device
from imprompt.ensemble.training.vit_examples import load_examples
from imprompt.ensemble.training.vit_schedule import VitSettings, check_settings
from imprompt.ensemble.training.vit_state import publish_best, work_folder
from imprompt.ensemble.training.vit_trainer import VitTrainer
from imprompt.ensemble.vit.backbones import load_backbone
from imprompt.store.locking import remove_lock, write_lock

DEFAULTS = VitSettings()


@dataclass(frozen=True, slots=True)
class VitReport:
    """The outcome of a training.

    `cosine` is the mean with the held-out prompts, `gain` its difference from a constant answer on
    the same images, each with a 95 % interval over groups of prompts. `skipped` are (image, reason)
    of images that cannot be read. `resumed_steps` were done by an earlier run.
    """

    out: str
    backbone: str
    pairs: int
    held_out: int
    skipped: tuple[tuple[str, str], ...]
    epochs: int
    best_epoch: int
    cosine: Estimate
    gain: Estimate
    resumed_steps: int
    steps: int
    seconds: float

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each fact, for a table."""
        return [
            ("pairs", f"{self.pairs:,}, {self.held_out:,} of them held out"),
            ("best epoch", f"{self.best_epoch + 1} of {self.epochs}"),
            ("mean cosine, held out", str(self.cosine)),
            ("gain over a constant", str(self.gain)),
            ("steps", f"{self.steps:,}, {self.resumed_steps:,} of them by an earlier run"),
            ("seconds", f"{self.seconds:.0f}"),
            ("tower", self.out),
        ]


def train_vit(
    pairs: Path,
    out: Path,
    *,
    backbone: str,
    weights: Path | None = None,
    from_scratch: bool = False,
    settings: VitSettings = DEFAULTS,
    device: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
    progress: Progress = SILENT,
) -> VitReport:
    """Train a tower on the pairs of a Parquet file and write the best epoch's to `out`.

    The loss is 1 minus the cosine with MiniLM's vector of the prompt. The state is kept in a hidden
    folder next to `out`: after a kill the same call resumes, and on one machine's CPU ends with the
    weights of an uninterrupted run. Memory grows with the pairs, whose prompts are all compared.

    Args:
        pairs: see `read_pairs`. Images that cannot be read are skipped and reported.
        out: a safetensors file; an existing one is replaced at the end.
        backbone, weights, from_scratch: see `load_backbone`.
        device: "auto", "cpu" or "cuda"; float16 where it is safe, on CUDA only.

    Raises:
        ConfigError, MemberUnavailable, WeightsMissing, WeightsRejected: see `load_backbone`; or a
            setting is out of range.
        CorpusError: the pairs cannot be read, or are too few.
        EncoderError: the loss is not finite, or a batch does not fit in memory.
        BuildLocked: another process trains to the same `out`.
        StorageFull: the disk is full or read-only.
    """
    began = time.monotonic()
    check_settings(settings)
    _check_name(out)
    minilm = load_minilm(device=device, announce=announce)
    seed, work = settings.seed, work_folder(out)
    tower, sha256 = load_backbone(
        backbone,
        weights=weights,
        from_scratch=from_scratch,
        seed=seed,
        offline=offline,
        announce=announce,
    )
    examples = load_examples(
        pairs, minilm=minilm, folds=settings.folds, seed=seed, progress=progress
    )
    trainer = VitTrainer(
        tower, examples, settings, weights_sha256=sha256, device=choose_device(device), work=work
    )
    return _train(trainer, out, began=began, announce=announce, progress=progress)


def _train(
    trainer: VitTrainer, out: Path, *, began: float, announce: Announce, progress: Progress
) -> VitReport:
    """Train to the end, or resume, and publish the best epoch; `began` by the monotonic clock."""
    with write_lock(trainer.work):
        if resumed := trainer.resume():
            announce(f"Resuming at step {resumed:,} of {trainer.steps:,}.")
        trainer.train(progress)
        cosine, gain = trainer.evaluate()
        publish_best(trainer.work, out)
    remove_lock(trainer.work)
    return VitReport(
        out=str(out),
        backbone=trainer.backbone,
        pairs=len(trainer.examples.paths),
        held_out=len(trainer.examples.held_out),
        skipped=tuple(sorted(trainer.state.rejected.items())),
        epochs=trainer.settings.epochs,
        best_epoch=trainer.state.best_epoch,
        cosine=cosine,
        gain=gain,
        resumed_steps=resumed,
        steps=trainer.steps,
        seconds=round(time.monotonic() - began, 3),
    )


def _check_name(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise ConfigError(
            f"{out} is not a name for a trained tower.", hint="It must end in .safetensors."
        )
