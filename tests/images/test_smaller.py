"""open_image with enough_px: large pictures come at a fraction of their size, a JPEG decoded so."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imprompt.core.errors import ImageRejected
from imprompt.images.decode import ENOUGH_PX, open_image
from imprompt.images.image_opening import ImageLimits


def photograph(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Soft colours with some grain: nothing that a JPEG could not hold."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8))


def saved(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((200, 127), (200, 127)),
        ((200, 128), (100, 64)),
        ((128, 201), (64, 101)),
        ((600, 256), (150, 64)),
        ((512, 512), (64, 64)),
        ((4096, 512), (512, 64)),
    ],
)
def test_the_shorter_side_keeps_enough(size: tuple[int, int], seen: tuple[int, int]) -> None:
    """1/2, 1/4 or 1/8, the smallest that keeps 64 pixels; a small picture keeps every bit."""
    data = saved(photograph(*size))
    picture = open_image(data, enough_px=64)
    assert picture.size == seen
    if size == seen:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(open_image(data)))


def test_it_shows_what_the_whole_picture_shows() -> None:
    """Resized to one size, the two differ by a few of 255, in colour, grey and progressive JPEG."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("RGB", {}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"progressive": True}),
    ]
    for mode, options in kinds:
        data = saved(photograph(512, 384).convert(mode), **options)
        small, whole = (
            open_image(data, enough_px=enough).resize((96, 96), Image.Resampling.BICUBIC)
            for enough in (96, None)
        )
        assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_its_exif_says(orientation: int) -> None:
    """A smaller picture stands as the whole one does."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(photograph(512, 256), exif=exif)
    small, whole = open_image(data, enough_px=64), open_image(data)
    assert small.size == (whole.width // 4, whole.height // 4)
    assert (
        np.abs(
            np.asarray(small).astype(int)
            - np.asarray(whole.resize(small.size, Image.Resampling.BOX))
        ).mean()
        < 3
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "AVIF"])
def test_other_formats_are_shrunk_alike(kind: str) -> None:
    """By the same factors, after decoding: each pixel is the mean of those that it stands for."""
    data = saved(photograph(519, 262), kind)
    small, whole = open_image(data, enough_px=64), open_image(data)
    assert (small.size, whole.size) == ((130, 66), (519, 262))
    np.testing.assert_array_equal(np.asarray(small), np.asarray(whole.reduce(4)))


def test_what_is_transparent_is_white_before_it_is_shrunk() -> None:
    """A black pixel that nobody sees makes no picture darker, in any mode that has transparency."""
    colours = np.zeros((300, 400, 4), np.uint8)
    colours[::2, :, 3] = 255
    for mode in ("RGBA", "LA"):
        small = open_image(saved(Image.fromarray(colours).convert(mode), "PNG"), enough_px=64)
        assert np.abs(np.asarray(small).astype(int) - 128).max() <= 1
    palette = Image.fromarray(np.tile(np.array([[0], [1]], np.uint8), (150, 400)), "L").convert("P")
    small = open_image(saved(palette, "PNG", transparency=1), enough_px=64)
    assert np.abs(np.asarray(small).astype(int) - 128).max() <= 1


def test_limits_and_damage_are_those_of_the_whole_picture() -> None:
    """The header's pixels count before any is decoded, and truncated files are errors."""
    data = saved(photograph(512, 256))
    with pytest.raises(ImageRejected, match="512 x 256"):
        open_image(data, limits=ImageLimits(max_pixels=512 * 256 - 1), enough_px=64)
    with pytest.raises(ImageRejected, match="truncated"):
        open_image(data[: len(data) // 2], enough_px=64)


def test_all_towers_look_at_less_than_is_decoded() -> None:
    """The trunks of `lite` see twice as many pixels a side or more before they are resized."""
    from imprompt.encoders.efficientnet import SIDE_PX

    assert 2 * max(SIDE_PX.values()) <= ENOUGH_PX
