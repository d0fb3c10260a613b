"""Image files of every kind, good and bad in one batch: each gets its answer or its own error."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imprompt.core.errors import ImageRejected
from imprompt.retriever import Answer, Question, Retriever
from imprompt.store.index_version import IndexVersion
from tests.images.builders import png
from tests.images.hostile_files import HOSTILE
from tests.retriever.colours import ColourPair

RED, GREEN = (255, 0, 0), (0, 255, 0)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half(first: tuple[int, int, int], second: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (16, 8), first)
    picture.paste(second, (8, 0, 16, 8))
    return picture


def palette_with_alpha() -> bytes:
    """Green where opaque; what is red in the palette is transparent."""
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.paste(0, (0, 0, 8, 2))
    return saved(picture, "PNG", transparency=bytes([0, 255]))


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(half(RED, GREEN), "PNG", exif=exif.tobytes())


ANSWERED: dict[str, tuple[bytes, str]] = {
    "CMYK": (saved(Image.new("CMYK", (8, 8), (255, 0, 255, 0)), "JPEG", quality=95), "green"),
    "16-bit grey": (
        saved(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG"),
        "red green blue",
    ),
    "16-bit RGB": (png(np.tile(np.array([0, 65535, 0], np.uint16), (8, 8, 1)), colour=2), "green"),
    "palette with alpha": (palette_with_alpha(), "green"),
    "animated GIF": (
        saved(
            Image.new("RGB", (8, 8), RED),
            "GIF",
            save_all=True,
            append_images=[Image.new("RGB", (8, 8), GREEN)],
        ),
        "red",
    ),
    "rotated": (rotated(), "red and green"),
    "1-bit": (saved(Image.new("1", (8, 8), 1), "PNG"), "red green blue"),
    "grey with alpha": (saved(Image.new("LA", (8, 8), (0, 0)), "PNG"), "red green blue"),
    "AVIF": (saved(Image.new("RGB", (8, 8), GREEN), "AVIF"), "green"),
    "lossless WebP": (saved(Image.new("RGBA", (8, 8), (*RED, 255)), "WEBP", lossless=True), "red"),
}


@pytest.mark.timeout(60)
def test_good_and_bad_files_in_one_batch(version: IndexVersion, tmp_path: Path) -> None:
    """Bad files between good ones: each gets its own reason, each good one its right prompt."""
    wanted: list[tuple[Path, str, bool]] = []
    for number, (make, reason) in enumerate(HOSTILE.values()):
        make(tmp_path / f"bad{number}.png")
        wanted.append((tmp_path / f"bad{number}.png", reason, False))
        data, prompt = list(ANSWERED.values())[number % len(ANSWERED)]
        (tmp_path / f"good{number}.png").write_bytes(data)
        wanted.append((tmp_path / f"good{number}.png", prompt, True))
    results = list(
        Retriever(version, ColourPair()).ask([Question(image=path) for path, _, _ in wanted], 3)
    )
    for (path, expected, good), result in zip(wanted, results, strict=True):
        if good:
            assert isinstance(result, Answer), result
            assert (result.image, result.neighbours[0].prompt) == (path, expected)
        else:
            assert isinstance(result, ImageRejected), result
            assert expected in result.reason
            assert str(path) in str(result)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_file_alone_gets_its_reason(case: str, version: IndexVersion, tmp_path: Path) -> None:
    """The result is the error itself, nothing is raised, and no model is asked."""
    make, reason = HOSTILE[case]
    make(tmp_path / "a.png")
    pair = ColourPair()
    (result,) = Retriever(version, pair).ask([Question(image=tmp_path / "a.png", text="red")], 3)
    assert isinstance(result, ImageRejected)
    assert reason in result.reason
    assert pair.images.batches == []
