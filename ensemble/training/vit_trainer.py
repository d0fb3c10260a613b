"""The training loop of an image tower: the head first, then all layers; the best epoch is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from imprompt.core.errors import CorpusError, EncoderError
from imprompt.core.metrics import Estimate, group_bootstrap, row_cosines
from imprompt.core.protocols import Progress, ProgressTask
from imprompt.core.values import Ids, Vectors, unit_rows
from imprompt.encoders.memory import out_of_memory
from imprompt.ensemble.training.image_batches import Batch, load_batches, load_pixels
from imprompt.ensemble.training.vit_examples import VitExamples
from imprompt.ensemble.training.vit_schedule import (
    VitSettings,
    parameter_groups,
    set_rates,
    weight_average,
)
from imprompt.ensemble.training.vit_state import BEST, TrainingState, resume_state, save_state
from imprompt.ensemble.vit.towers import Tower
from imprompt.ensemble.vit.vit_checkpoint import FORMAT, Facts, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from torch import Tensor


class VitTrainer:
    """Trains a tower; `state` is what changes, all else is fixed.

    Args:
        tower: is moved to `device` and trained.
        examples: pairs, of which some are held out.
        settings: epochs, rates and so on.
        weights_sha256: of the backbone's weights.
        device: "cpu" or "cuda".
        work: the folder for the state and the best checkpoint so far.
    """

    def __init__(
        self,
        tower: Tower,
        examples: VitExamples,
        settings: VitSettings,
        *,
        weights_sha256: str,
        device: str,
        work: Path,
    ) -> None:
        import torch

        self._tower = tower
        self.examples = examples
        self.settings = settings
        self.backbone = tower.blueprint.architecture
        self._weights_sha256 = weights_sha256
        self._device = device
        self.work = work
        self._epoch_steps = -(-len(examples.train) // settings.batch_size)
        self._head_steps = self._epoch_steps * settings.head_epochs
        self.steps = self._epoch_steps * settings.epochs
        network = tower.network.to(device)
        self.state = TrainingState(
            network,
            weight_average(network, settings),
            torch.optim.AdamW(parameter_groups(tower, settings)),
            torch.amp.GradScaler(device, enabled=device == "cuda"),
        )
        self._plan = self._digest()

    def _digest(self) -> str:
        """Return the sha256 of all that the result depends on."""
        import torch

        facts = (
            msgspec.structs.replace(self.settings, save_steps=1),  # does not change the result
            self._tower.blueprint,
            self._weights_sha256,
            self.examples.digest,
            str(torch.__version__),
            self._device,
        )
        return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()

    def resume(self) -> int:
        """Load the state of an interrupted run, if any; return the number of steps it did.

        Raises:
            WeightsRejected: the saved state is damaged.
        """
        resume_state(self.work, self.state, plan=self._plan)
        return self.state.step

    def train(self, progress: Progress) -> None:
        """Train to the end, saving the state every few steps and after each epoch.

        Raises:
            CorpusError: none of the held-out images can be read.
            EncoderError: the loss is not finite, or a batch does not fit in memory.
            StorageFull: the disk is full or read-only.
        """
        import torch

        devices = [torch.cuda.current_device()] if self._device == "cuda" else []
        try:
            with (
                torch.random.fork_rng(devices=devices),
                progress.start(f"Training {self.backbone}", self.steps) as task,
            ):
                task.advance(self.state.step)
                while self.state.epoch < self.settings.epochs:
                    self._train_epoch(task)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise EncoderError(
                f"{self.backbone} with a batch of {self.settings.batch_size} does not fit in "
                "memory.",
                hint="Set a smaller --batch-size.",
            ) from error

    def _train_epoch(self, task: ProgressTask) -> None:
        state = self.state
        for batch in self._training_batches():
            self._note_rejected(batch)
            if batch.pixels is not None:
                self._learn(batch, batch.pixels)
            state.step += 1
            task.advance(1)
            if state.step % self.settings.save_steps == 0:
                save_state(self.work, state, plan=self._plan)
        self._finish_epoch()
        save_state(self.work, state, plan=self._plan)

    def evaluate(self) -> tuple[Estimate, Estimate]:
        """Return the held-out cosine of the best checkpoint, and its gain over a constant.

        The constant is the mean of the targets that were trained on.
        """
        best = read_checkpoint(str(self.work / BEST)).tower.network.to(self._device)
        rows, vectors = self._predict_held_out(best)
        examples = self.examples
        prompts, groups = examples.prompts[rows], examples.groups[rows]
        cosines = row_cosines(vectors, prompts)
        constant = unit_rows(examples.targets[examples.train].mean(axis=0, keepdims=True))
        gains = cosines - row_cosines(np.repeat(constant, len(rows), axis=0), prompts)
        rng = np.random.default_rng(self.settings.seed)
        return group_bootstrap(cosines, groups, rng=rng), group_bootstrap(gains, groups, rng=rng)

    def _training_batches(self) -> Iterator[Batch]:
        """Yield the rest of the epoch; order and crops follow from the seed and the epoch alone."""
        seed, epoch, size = self.settings.seed, self.state.epoch, self.settings.batch_size
        order = np.random.default_rng([seed, epoch]).permutation(self.examples.train)
        begin = (self.state.step - epoch * self._epoch_steps) * size
        batches = (order[at : at + size] for at in range(begin, len(order), size))
        return load_batches(
            batches, self._loader(lambda row: np.random.default_rng([seed, epoch, row]))
        )

    def _loader(
        self, rng_of: Callable[[int], np.random.Generator | None]
    ) -> Callable[[int], Tensor]:
        paths, transform = self.examples.paths, self._tower.transform
        share = self.settings.crop_share
        return lambda row: load_pixels(paths[row], transform, rng=rng_of(row), share=share)

    def _note_rejected(self, batch: Batch) -> None:
        paths = self.examples.paths
        self.state.rejected.update((str(paths[row]), reason) for row, reason in batch.rejected)

    def _learn(self, batch: Batch, pixels: Tensor) -> None:
        """Take one step; its randomness (dropout) follows from the seed and the step."""
        import torch
        from torch.nn.functional import cosine_similarity

        state, settings = self.state, self.settings
        torch.manual_seed(settings.seed * 1_000_003 + state.step)
        self._set_trained_layers()
        targets = torch.from_numpy(self.examples.targets[batch.rows]).to(self._device)
        with torch.autocast(self._device, dtype=torch.float16, enabled=self._device == "cuda"):
            rows = state.network(self._on_device(pixels))
        loss = (1 - cosine_similarity(rows.float(), targets)).mean()
        if not torch.isfinite(loss):
            raise EncoderError(
                f"the loss is {loss.item()} at step {state.step:,}: the training has diverged.",
                hint="Set a lower --learning-rate.",
            )
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.max_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.average.update_parameters(state.network)

    def _set_trained_layers(self) -> None:
        """Set the mode, gradients and rates of all layers for the next step."""
        state = self.state
        head_alone = state.step < self._head_steps
        # Below a head that learns alone, batch norms and dropout stand still.
        state.network.train(mode=not head_alone)
        for name, parameter in state.network.named_parameters():
            parameter.requires_grad_(not head_alone or name in self._tower.head)
        set_rates(
            state.optimizer.param_groups,
            state.step,
            head_steps=self._head_steps,
            steps=self.steps,
            settings=self.settings,
        )

    def _on_device(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._device, non_blocking=True)

    def _finish_epoch(self) -> None:
        """Measure the averaged weights on the held-out pairs, and keep them if they are best."""
        state, network = self.state, self.state.average.module
        rows, vectors = self._predict_held_out(network)
        cosines = row_cosines(vectors, self.examples.prompts[rows])
        state.cosines.append(float(cosines.mean(dtype=np.float64)))
        if state.cosines[-1] > state.best:
            state.best, state.best_epoch = state.cosines[-1], state.epoch
            write_checkpoint(self.work / BEST, network.state_dict(), self._facts())
        state.epoch += 1

    def _predict_held_out(self, network: Any) -> tuple[Ids, Vectors]:
        """Return the held-out rows whose images can be read, and the network's unit rows."""
        import torch

        network.eval()
        held_out, size = self.examples.held_out, self.settings.batch_size
        batches = (held_out[at : at + size] for at in range(0, len(held_out), size))
        rows, vectors = [], []
        for batch in load_batches(batches, self._loader(lambda _row: None)):
            self._note_rejected(batch)
            if batch.pixels is not None:
                with torch.inference_mode():
                    outputs = network(self._on_device(batch.pixels))
                vectors.append(outputs.float().cpu().numpy())
                rows.append(batch.rows)
        if not rows:
            raise CorpusError(
                f"None of the {len(held_out)} held-out images can be read.",
                hint="Check the images.",
            )
        unit = unit_rows(np.concatenate(vectors), role=f"the tower {self.backbone}")
        return np.concatenate(rows), unit

    def _facts(self) -> Facts:
        training = {
            "settings": msgspec.to_builtins(self.settings),
            "pairs": len(self.examples.paths),
            "held_out": len(self.examples.held_out),
            "epoch": self.state.epoch,
            "cosine_held_out": self.state.best,
        }
        return Facts(
            format=FORMAT,
            blueprint=self._tower.blueprint,
            backbone=self.backbone,
            backbone_sha256=self._weights_sha256,
            training=training,
        )
