"""The image trunk against an independent implementation of the same network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from imprompt.core.errors import ConfigError
from imprompt.encoders.efficientnet import SIDE_PX, EfficientNetLite, squashed_pixels
from imprompt.encoders.weights import pinned_weights


def pictures(count: int, *, seed: int = 0) -> list[Image.Image]:
    """Smooth random pictures of various shapes."""
    rng = np.random.default_rng(seed)
    sizes = [(300, 200), (64, 300), (260, 260), (17, 40)]
    coarse = rng.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    return [
        Image.fromarray(one).resize(sizes[row % 4], Image.Resampling.BICUBIC)
        for row, one in enumerate(coarse)
    ]


@pytest.mark.parametrize(("name", "side_px"), SIDE_PX.items())
def test_activations_equal_those_of_timm(name: str, side_px: int) -> None:
    """The same weights in timm's network give the same activations, stage by stage."""
    import timm
    import torch

    images = pictures(3)
    state = torch.load(
        pinned_weights(f"efficientnet-{name}").path, map_location="cpu", weights_only=True
    )
    oracle: Any = timm.create_model(f"tf_efficientnet_{name}", pretrained=False).eval()
    ours = [tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")]
    theirs = [key for key in oracle.state_dict() if not key.endswith("num_batches_tracked")]
    oracle.load_state_dict(dict(zip(theirs, ours, strict=True)), strict=False)
    values = (squashed_pixels(images, side_px).astype(np.float32) - 127) / 128
    pixels = torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        hidden = [oracle.bn1(oracle.conv_stem(pixels))]
        for stage in oracle.blocks:
            hidden.append(stage(hidden[-1]))
        stages = torch.cat([one.mean((2, 3)) for one in hidden[1:]], dim=1)
        pooled = oracle.forward_features(pixels).mean((2, 3))
        logits = oracle(pixels)
    seen = EfficientNetLite(name).activations(images)
    np.testing.assert_allclose(seen.logits, logits.numpy(), atol=2e-5)
    np.testing.assert_allclose(seen.pooled, pooled.numpy(), atol=2e-5)
    np.testing.assert_allclose(seen.stages, stages.numpy(), rtol=1e-5, atol=2e-5)


def test_a_row_does_not_depend_on_its_batch() -> None:
    """An image gives the same features alone and among more images than a batch holds."""
    images = pictures(18)
    trunk = EfficientNetLite("lite0")
    together = trunk.activations(images)
    alone = trunk.activations(images[-1:])
    np.testing.assert_allclose(together.pooled[-1:], alone.pooled, atol=1e-5)
    assert np.ptp(together.logits, axis=0).max() > 1  # different pictures are seen as different


def test_no_images_give_no_rows() -> None:
    """An empty batch is answered with empty arrays of the right width."""
    seen = EfficientNetLite("lite0").activations([])
    assert seen.pooled.shape == (0, 1280)
    assert seen.logits.shape == (0, 1000)


def test_the_square_takes_in_the_whole_picture() -> None:
    """A picture is squashed, not cropped."""
    picture = Image.new("RGB", (40, 20), "black")
    picture.paste("white", (20, 0, 40, 20))
    pixels = squashed_pixels([picture], 8)
    assert pixels.shape == (1, 8, 8, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, :, 0].max() == 0
    assert pixels[0, :, -1].min() == 255


def test_an_unknown_trunk_is_refused() -> None:
    """The error names what is known."""
    with pytest.raises(ConfigError, match="lite7"):
        EfficientNetLite("lite7")
