"""open_image: what is answered looks as a viewer shows it."""

from __future__ import annotations

import threading
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from imprompt.images.decode import open_image
from tests.images.builders import png, png_chunk

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: bytes | Path) -> NDArray[np.uint8]:
    picture = open_image(source)
    assert picture.mode == "RGB"
    assert not picture.info
    return np.asarray(picture)


def quadrants(size: int = 32) -> Image.Image:
    """Return red, green (top), blue, white (bottom): every orientation of it differs."""
    picture = Image.new("RGB", (size, 2 * size), WHITE)
    picture.paste(RED, (0, 0, size // 2, size))
    picture.paste(GREEN, (size // 2, 0, size, size))
    picture.paste(BLUE, (0, size, size // 2, 2 * size))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_pixel_for_pixel(kind: str, tmp_path: Path) -> None:
    """From bytes and from a file with a wrong extension alike."""
    path = tmp_path / "picture.txt"
    path.write_bytes(saved(quadrants(), kind))
    np.testing.assert_array_equal(pixels(path), np.asarray(quadrants()))
    np.testing.assert_array_equal(pixels(path.read_bytes()), np.asarray(quadrants()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_lossy_formats_come_back_close(kind: str) -> None:
    """The mean difference stays below 4 of 255."""
    difference = pixels(saved(quadrants(64), kind)).astype(int) - np.asarray(quadrants(64))
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    """Cameras store the picture turned, with its orientation; all eight, in each EXIF format."""
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](np.asarray(quadrants(64)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    answered = pixels(
        saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif.tobytes())
    )
    assert answered.shape == (128, 64, 3)
    assert np.abs(answered.astype(int) - np.asarray(quadrants(64))).mean() < 4


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"\xff" * 40, b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_damaged_exif_does_not_stop_a_good_picture(exif: bytes) -> None:
    """An EXIF block that cannot be parsed counts as upright."""
    assert pixels(saved(quadrants(), "JPEG", exif=exif)).shape == (64, 32, 3)


def test_cmyk_becomes_rgb() -> None:
    """Pure cyan ink is (0, 255, 255) on screen, no ink is white."""
    ink = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    ink.paste((0, 0, 0, 0), (16, 0, 32, 32))
    answered = pixels(saved(ink, "JPEG", quality=100))
    np.testing.assert_allclose(answered[16, 4], (0, 255, 255), atol=6)
    np.testing.assert_allclose(answered[16, 28], WHITE, atol=6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled(kind: str) -> None:
    """0, a quarter, half and full of 65,535 become 0, 64, 128 and 255, and nothing is clipped."""
    ramp = np.array([[0, 257 * 64, 257 * 128, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(
        pixels(saved(Image.fromarray(ramp), kind))[0, :, 0], [0, 64, 128, 255]
    )


def test_sixteen_bit_grey_of_either_byte_order_is_scaled() -> None:
    """A TIFF whose numbers are big-endian."""
    values = np.array([[0, 257 * 64, 65535]], dtype=">u2")
    data = saved(Image.frombytes("I;16B", (3, 1), values.tobytes()), "TIFF")
    assert Image.open(BytesIO(data)).mode == "I;16B"
    np.testing.assert_array_equal(pixels(data)[0, :, 0], [0, 64, 255])


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colour_and_alpha_are_scaled(colour: int, channels: int) -> None:
    """RGB, grey with alpha and RGBA of 16 bits a channel: opaque pixels keep their upper byte."""
    ramp = np.empty((1, 3, channels), dtype=np.uint16)
    ramp[0, :, :] = np.array([0, 257 * 100, 65535])[:, None]
    if channels in (2, 4):
        ramp[..., -1] = 65535
    np.testing.assert_array_equal(pixels(png(ramp, colour=colour))[0, :, 0], [0, 100, 255])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_shows_a_white_ground(mode: str) -> None:
    """Full, half and no transparency of black on white: 255, 127 or 128, 0."""
    alpha = Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8))
    picture = Image.new("L" if mode == "LA" else "RGB", (3, 1), 0)
    picture.putalpha(alpha)
    assert picture.mode == mode
    np.testing.assert_allclose(pixels(saved(picture, "PNG"))[0, :, 0], [255, 127, 0], atol=1)


def test_a_palette_with_alpha_shows_a_white_ground() -> None:
    """Each palette entry's own alpha counts, not only one transparent index."""
    picture = Image.new("P", (3, 1))
    picture.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0])
    picture.putdata([0, 1, 2])
    answered = pixels(saved(picture, "PNG", transparency=bytes([0, 128, 255])))
    np.testing.assert_allclose(answered[0], [WHITE, (127, 127, 127), RED], atol=1)


@pytest.mark.parametrize(
    ("dtype", "colour", "key", "values"),
    [
        (np.uint8, 0, b"\0\x07", [7, 9]),
        (np.uint16, 0, b"\x07\x07", [0x0707, 0x0909]),
        (np.uint8, 2, b"\0\x07\0\x07\0\x07", [7, 9]),
        (np.uint16, 2, b"\x07\x07\x07\x07\x07\x07", [0x0707, 0x0909]),
    ],
)
def test_a_colour_that_stands_for_transparent_becomes_white(
    dtype: type[np.unsignedinteger], colour: int, key: bytes, values: list[int]
) -> None:
    """PNG's tRNS key for grey and RGB, 8 and 16 bits: its pixel is white, the other is kept."""
    array = np.repeat(np.array(values, dtype=dtype)[None, :, None], 1 if colour == 0 else 3, axis=2)
    assert pixels(png(array, colour=colour, before=png_chunk(b"tRNS", key)))[0, :, 1].tolist() == [
        255,
        9,
    ]


def test_one_bit_pictures_are_black_and_white() -> None:
    """Mode 1 comes back as 0 and 255."""
    picture = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    np.testing.assert_array_equal(pixels(saved(picture, "PNG"))[0, :, 0], [0, 255])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_answered(kind: str) -> None:
    """Red comes first, blue second; red is answered."""
    frames = [Image.new("RGB", (32, 32), RED), Image.new("RGB", (32, 32), BLUE)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    with Image.open(BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
    np.testing.assert_allclose(pixels(data)[16, 16], RED, atol=6)


def test_large_harmless_text_is_no_reason_to_refuse() -> None:
    """A ComfyUI file with 3 MB of workflow is answered."""
    info = PngInfo()
    info.add_text("workflow", "x" * (3 << 20))
    assert pixels(saved(quadrants(), "PNG", pnginfo=info)).shape == (64, 32, 3)


def test_warnings_of_pillow_do_not_get_out_and_filters_stay_as_they_were() -> None:
    """Eight threads, a JPEG that Pillow warns of: no warning, no error, filters kept."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(quadrants(), "JPEG", exif=exif.tobytes()[:-4])
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(BytesIO(data)).getexif()
    before = warnings.filters
    failures: list[Exception] = []

    def decode() -> None:
        try:
            for _ in range(20):
                open_image(data)
        except Exception as error:  # noqa: BLE001 -- a thread's failure has to reach the test
            failures.append(error)

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters is before


def test_pillow_is_left_as_it_was() -> None:
    """The limits and switches of Pillow that are global keep their values."""
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    open_image(saved(quadrants(), "PNG"))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
