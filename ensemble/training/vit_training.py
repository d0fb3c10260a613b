"""Training of an image tower on pairs: the head first, then all layers; resumable; the best epoch is kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from imprompt.core.errors import ConfigError, CorpusError, EncoderError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.metrics import Estimate, group_bootstrap, row_cosines
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.values import Ids, Vectors, unit_rows
from imprompt.encoders.memory import out_of_memory
from imprompt.encoders.minilm import load_minilm
from imprompt.encoders.torch_devices import choose_device
from imprompt.ensemble.training.image_batches import Batch, load_batches, load_pixels
from imprompt.ensemble.training.vit_examples import VitExamples, load_examples
from imprompt.ensemble.training.vit_schedule import (
    VitSettings,
    check_settings,
    parameter_groups,
    set_rates,
    weight_average,
)
from imprompt.ensemble.training.vit_state import (
    BEST,
    Run,
    publish_best,
    resume_run,
    save_run,
    work_folder,
)
from imprompt.ensemble.vit.backbones import load_backbone
from imprompt.ensemble.vit.towers import Tower
from imprompt.ensemble.vit.vit_checkpoint import FORMAT, Facts, read_checkpoint, write_checkpoint
from imprompt.store.locking import write_lock

if TYPE_CHECKING:
    from torch import Tensor

DEFAULTS = VitSettings()


@dataclass(frozen=True, slots=True)
class VitReport:
    """What a training did.

    `cosine` is the mean with the prompts that were held out, `gain` what it has over a constant
    answer on the same images, each with a 95 % interval over groups of prompts. `skipped` are
    (image, reason) of images that cannot be read. `resumed_steps` were done by an earlier run.
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
        """Label and value of each fact, for a table."""
        return [
            ("pairs", f"{self.pairs:,}, of which {self.held_out:,} were held out"),
            ("best epoch", f"{self.best_epoch + 1} of {self.epochs}"),
            (
                "mean cosine, held out",
                f"{self.cosine.mean:.3f} [{self.cosine.low:.3f}, {self.cosine.high:.3f}]",
            ),
            (
                "more than a constant",
                f"{self.gain.mean:.3f} [{self.gain.low:.3f}, {self.gain.high:.3f}]",
            ),
            ("steps", f"{self.steps:,}, {self.resumed_steps:,} of them by an earlier run"),
            ("seconds", f"{self.seconds:.0f}"),
            ("tower", self.out),
        ]


@dataclass(frozen=True, slots=True)
class _TrainingRun:
    """All that a training does not change."""

    tower: Tower
    backbone: str
    backbone_sha256: str
    examples: VitExamples
    settings: VitSettings
    device: str
    work: Path
    progress: Progress

    @property
    def epoch_steps(self) -> int:
        return -(-len(self.examples.train) // self.settings.batch_size)

    @property
    def steps(self) -> int:
        return self.epoch_steps * self.settings.epochs

    @property
    def head_steps(self) -> int:
        return self.epoch_steps * self.settings.head_epochs

    def plan(self) -> str:
        """sha256 of all that the result depends on."""
        import torch

        facts = (
            msgspec.structs.replace(
                self.settings, save_steps=1
            ),  # when a run is kept changes nothing
            self.tower.blueprint,
            self.backbone_sha256,
            self.examples.digest,
            str(torch.__version__),
            self.device,
        )
        return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


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

    The loss is 1 minus the cosine with MiniLM's vector of the prompt. What was done is kept in a
    hidden folder beside `out` until the end: after a kill the same call goes on, and on one
    machine's processor ends with the same weights as an unbroken run. Memory for comparing all
    prompts with each other and a few arrays of 384 numbers a pair is all that grows with the pairs.

    Args:
        pairs: as `imprompt.ensemble.training.pairs.read_pairs` takes them. Images that cannot be
            read are left out and reported.
        out: a safetensors file; one that is there is replaced at the end.
        backbone, weights, from_scratch: see `imprompt.ensemble.vit.backbones.load_backbone`.
        settings: how.
        device: "auto", "cpu" or "cuda"; float16 where it is safe, on CUDA only.
        offline: fetch nothing.
        announce: takes a line for the user.
        progress: is told of every step.

    Raises:
        ConfigError, MemberUnavailable, WeightsMissing, WeightsRejected: the backbone is not to be
            had; see `load_backbone`; or a setting is out of its range.
        CorpusError: the pairs cannot be read or are too few, or none of those held out has a
            readable image.
        EncoderError: the loss is no number any more, or the memory does not hold a batch.
        BuildLocked: another process is at the same `out`.
        StorageFull: the disk is full or may not be written.
    """
    began = time.monotonic()
    check_settings(settings)
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out} is no name for a trained tower.", hint="It ends in .safetensors.")
    chosen = choose_device(device)
    minilm = load_minilm(device=device, announce=announce)
    tower, sha256 = load_backbone(
        backbone,
        weights=weights,
        from_scratch=from_scratch,
        seed=settings.seed,
        offline=offline,
        announce=announce,
    )
    examples = load_examples(
        pairs, minilm=minilm, folds=settings.folds, seed=settings.seed, progress=progress
    )
    said = tower.blueprint.architecture
    job = _TrainingRun(tower, said, sha256, examples, settings, chosen, work_folder(out), progress)
    run = _start(job)
    with write_lock(job.work):
        if resume_run(job.work, run, plan=job.plan()):
            announce(f"Going on at step {run.step:,} of {job.steps:,}.")
        resumed = run.step
        try:
            _train(job, run)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise EncoderError(
                f"the memory does not hold {said} with a batch of {settings.batch_size}.",
                hint="Ask for less with --batch-size.",
            ) from error
        cosine, gain = _examined(job, run)
        publish_best(job.work, out)
    return VitReport(
        out=str(out),
        backbone=said,
        pairs=len(examples.paths),
        held_out=len(examples.held_out),
        skipped=tuple(sorted(run.rejected.items())),
        epochs=settings.epochs,
        best_epoch=run.best_epoch,
        cosine=cosine,
        gain=gain,
        resumed_steps=resumed,
        steps=job.steps,
        seconds=round(time.monotonic() - began, 3),
    )


def _start(job: _TrainingRun) -> Run:
    import torch

    network = job.tower.network.to(job.device)
    optimizer = torch.optim.AdamW(parameter_groups(job.tower, job.settings))
    scaler = torch.amp.GradScaler(job.device, enabled=job.device == "cuda")
    return Run(network, weight_average(network, job.settings), optimizer, scaler)


def _train(job: _TrainingRun, run: Run) -> None:
    import torch

    plan = job.plan()
    devices = [torch.cuda.current_device()] if job.device == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        job.progress.start(f"Training {job.backbone}", job.steps) as task,
    ):
        task.advance(run.step)
        while run.epoch < job.settings.epochs:
            for batch in _training_batches(job, run):
                _note_rejected(job, run, batch)
                if batch.pixels is not None:
                    _learn(job, run, batch)
                run.step += 1
                task.advance(1)
                if run.step % job.settings.save_steps == 0:
                    save_run(job.work, run, plan=plan)
            _finish_epoch(job, run)
            save_run(job.work, run, plan=plan)


def _training_batches(job: _TrainingRun, run: Run) -> Iterator[Batch]:
    """What is left of the epoch: its order and the parts of its pictures follow from the seed and the epoch alone."""
    seed, epoch = job.settings.seed, run.epoch
    order = np.random.default_rng([seed, epoch]).permutation(job.examples.train)
    size = job.settings.batch_size
    left = (
        order[begin : begin + size]
        for begin in range((run.step - epoch * job.epoch_steps) * size, len(order), size)
    )
    return load_batches(left, _loader(job, lambda row: np.random.default_rng([seed, epoch, row])))


def _loader(
    job: _TrainingRun, rng_of: Callable[[int], np.random.Generator | None]
) -> Callable[[int], Tensor]:
    paths, transform, share = job.examples.paths, job.tower.transform, job.settings.crop_share
    return lambda row: load_pixels(paths[row], transform, rng=rng_of(row), share=share)


def _note_rejected(job: _TrainingRun, run: Run, batch: Batch) -> None:
    run.rejected.update((str(job.examples.paths[row]), reason) for row, reason in batch.rejected)


def _learn(job: _TrainingRun, run: Run, batch: Batch) -> None:
    """One step. All that is random in it (dropout) follows from the seed and the step."""
    import torch
    from torch.nn.functional import cosine_similarity

    settings = job.settings
    torch.manual_seed(settings.seed * 1_000_003 + run.step)
    head_alone = run.step < job.head_steps
    run.network.train(
        mode=not head_alone
    )  # below a head that learns alone, batch norms and dropout stand still
    for name, parameter in run.network.named_parameters():
        parameter.requires_grad_(not head_alone or name in job.tower.head)
    set_rates(
        run.optimizer.param_groups,
        run.step,
        head_steps=job.head_steps,
        steps=job.steps,
        settings=settings,
    )
    targets = torch.from_numpy(job.examples.targets[batch.rows]).to(job.device)
    with torch.autocast(job.device, dtype=torch.float16, enabled=job.device == "cuda"):
        rows = run.network(_on(job, batch))
    loss = (1 - cosine_similarity(rows.float(), targets)).mean()
    if not torch.isfinite(loss):
        raise EncoderError(
            f"the loss is {loss.item()} at step {run.step:,}; the training has diverged.",
            hint="Ask for a lower --learning-rate.",
        )
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    run.scaler.unscale_(run.optimizer)
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), settings.max_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.average.update_parameters(run.network)


def _on(job: _TrainingRun, batch: Batch) -> Any:
    return None if batch.pixels is None else batch.pixels.to(job.device, non_blocking=True)


def _finish_epoch(job: _TrainingRun, run: Run) -> None:
    """Examine the averaged weights on what was held out, and keep them where they are the best so far."""
    rows, vectors = _answers(job, run, run.average.module)
    cosine = float(row_cosines(vectors, job.examples.prompts[rows]).mean(dtype=np.float64))
    run.cosines.append(cosine)
    if cosine > run.best:
        run.best, run.best_epoch = cosine, run.epoch
        write_checkpoint(job.work / BEST, run.average.module.state_dict(), _facts(job, run))
    run.epoch += 1


def _answers(job: _TrainingRun, run: Run, network: Any) -> tuple[Ids, Vectors]:
    """Row numbers of what was held out and can be read, and the network's unit rows for them."""
    import torch

    network.eval()
    size = job.settings.batch_size
    held_out = job.examples.held_out
    batches = (held_out[begin : begin + size] for begin in range(0, len(held_out), size))
    rows, vectors = [], []
    for batch in load_batches(batches, _loader(job, lambda _row: None)):
        _note_rejected(job, run, batch)
        if batch.pixels is not None:
            with torch.inference_mode():
                vectors.append(network(_on(job, batch)).float().cpu().numpy())
            rows.append(batch.rows)
    if not rows:
        raise CorpusError(
            f"None of the {len(held_out)} images that were held out can be read.",
            hint="Check the images.",
        )
    return np.concatenate(rows), unit_rows(
        np.concatenate(vectors), role=f"the tower {job.backbone}"
    )


def _facts(job: _TrainingRun, run: Run) -> Facts:
    training = {
        "settings": msgspec.to_builtins(job.settings),
        "pairs": len(job.examples.paths),
        "held_out": len(job.examples.held_out),
        "epoch": run.epoch,
        "cosine_held_out": run.best,
    }
    blueprint = job.tower.blueprint
    return Facts(
        format=FORMAT,
        blueprint=blueprint,
        backbone=job.backbone,
        backbone_sha256=job.backbone_sha256,
        training=training,
    )


def _examined(job: _TrainingRun, run: Run) -> tuple[Estimate, Estimate]:
    """The cosine of the best epoch's file on what was held out, and its gain over the mean of the targets it was trained on."""
    best = read_checkpoint(str(job.work / BEST)).tower.network.to(job.device)
    rows, vectors = _answers(job, run, best)
    prompts, groups = job.examples.prompts[rows], job.examples.groups[rows]
    cosines = row_cosines(vectors, prompts)
    constant = unit_rows(job.examples.targets[job.examples.train].mean(axis=0, keepdims=True))
    rng = np.random.default_rng(job.settings.seed)
    gains = cosines - row_cosines(np.repeat(constant, len(rows), axis=0), prompts)
    return group_bootstrap(cosines, groups, rng=rng), group_bootstrap(gains, groups, rng=rng)
