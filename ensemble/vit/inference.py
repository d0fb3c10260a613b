"""A trained tower that answers: pictures in, unit rows in MiniLM space out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.values import Vectors, unit_rows
from imprompt.encoders.batches import Batches
from imprompt.encoders.torch_devices import choose_device
from imprompt.ensemble.vit.towers import DIM, Tower
from imprompt.ensemble.vit.vit_checkpoint import read_checkpoint

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES_A_BATCH = 32


class TrainedTower:
    """An `imprompt.ensemble.regressor.OutputTower`.

    `load` makes one; `files` are those that it was read from.
    """

    def __init__(
        self,
        tower: Tower,
        *,
        device: str,
        files: tuple[Path, ...] = (),
        announce: Announce = silent,
    ) -> None:
        self._network = tower.network.to(device).eval()
        self._transform = tower.transform
        self._device = device
        self._batches = Batches(IMAGES_A_BATCH, announce=announce)
        self.files = files

    @classmethod
    def load(cls, source: str, *, device: str, announce: Announce) -> TrainedTower:
        """The tower of a checkpoint, as `imprompt.ensemble.vit.vit_checkpoint.read_checkpoint` takes it, and raising what that raises.

        Args:
            source: a file, a folder, or ARCH//FILE.
            device: "auto", "cpu" or "cuda"; float32 on all.
            announce: takes a line for the user.
        """
        chosen = choose_device(device)
        trained = read_checkpoint(source)
        return cls(trained.tower, device=chosen, files=trained.files, announce=announce)

    def output(self, items: Sequence[Image]) -> Vectors:
        """(n, 384) unit rows in MiniLM space, in the order given; pictures are never flipped."""
        rows = self._batches.encode(items, dim=DIM, encode_batch=self._rows)
        return unit_rows(rows, role="the image tower of vit")

    def _rows(self, pictures: list[Image]) -> Vectors:
        import torch

        pixels = torch.stack([self._transform(picture) for picture in pictures])
        with torch.inference_mode():
            rows: Vectors = self._network(pixels.to(self._device)).float().cpu().numpy()
        return rows
