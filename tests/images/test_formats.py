"""HEIC and JPEG XL: prompt, picture, bounds before a decoder, and the error without a package."""

from __future__ import annotations

import re
import sys
from io import BytesIO
from pathlib import Path

import pillow_heif  # registers its writer below
import pillow_jxl  # noqa: F401 registers its writer
import pytest
from PIL import Image

from imprompt.core.errors import ImageRejected
from imprompt.core.pip_lines import install_extra
from imprompt.images.bounds import ImageLimits, inspect
from imprompt.images.decode import open_image
from imprompt.images.image_files import find_images, find_images_and_unreadable
from imprompt.images.prompts.embedded_prompts import read_embedded_prompt
from tests.conftest import Imprompt

pillow_heif.register_heif_opener()
PROMPT = "a lighthouse, dusk"
INFOTEXT = f"{PROMPT}\nNegative prompt: blur\nSteps: 20, Sampler: Euler, Seed: 1, Size: 300x200"


def write(path: Path, size: tuple[int, int] = (300, 200), text: str = INFOTEXT) -> Path:
    """A picture of a gradient with the text in its EXIF."""
    exif = Image.Exif()
    exif[0x010E] = text
    picture = Image.linear_gradient("L").convert("RGB").resize(size)
    kind = {".heic": "HEIF", ".jxl": "JXL", ".jp2": "JPEG2000"}.get(path.suffix, "PNG")
    picture.save(path, kind, **({"exif": exif.tobytes()} if text and kind != "JPEG2000" else {}))
    return path


@pytest.mark.parametrize("suffix", [".heic", ".jxl"])
def test_prompt_and_picture_are_read(suffix: str, tmp_path: Path) -> None:
    """As of any other format, by path and by bytes."""
    path = write(tmp_path / f"a{suffix}")
    for source in (path, path.read_bytes()):
        found = read_embedded_prompt(source)
        assert found is not None
        assert (found.prompt, found.negative, found.settings["seed"]) == (PROMPT, "blur", "1")
        assert open_image(source).size == (300, 200)


@pytest.mark.parametrize(
    "size",
    [
        (1, 1),
        (8, 8),
        (256, 256),
        (300, 200),
        (200, 300),
        (600, 500),
        (1920, 1080),
        (9000, 100),
        (1000, 8191),
        (640, 320),
    ],
)
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int]) -> None:
    """The header's own bits, beside what the encoder was asked for; bare and in boxes."""
    for options in ({}, {"use_container": True}):
        buffer = BytesIO()
        Image.new("L", size).save(buffer, "JXL", effort=1, **options)
        found = inspect(buffer, "JPEG XL", "a.jxl", ImageLimits(), decode=True)
        assert found.canvas == size


def test_a_picture_of_one_colour_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some hundred bytes that would take a gigabyte."""
    buffer = BytesIO()
    Image.new("RGB", (7000, 7000)).save(buffer, "JXL", effort=1)
    monkeypatch.setattr("pillow_jxl.JpegXLImagePlugin.Decoder", None)
    with pytest.raises(ImageRejected, match="bytes of memory for its 7,000 x 7,000 pixels"):
        open_image(buffer.getvalue())


@pytest.mark.parametrize("suffix", [".heic", ".jxl"])
def test_damage_is_one_line(suffix: str, tmp_path: Path) -> None:
    """Cut short, or with bytes changed: refused, or read; never another error."""
    whole = write(tmp_path / f"a{suffix}").read_bytes()
    for at in range(2, len(whole), max(1, len(whole) // 60)):
        changed = bytearray(whole)
        changed[at] ^= 0x55
        for content in (whole[:at], bytes(changed)):
            for read in (open_image, read_embedded_prompt):
                try:
                    read(content)
                except ImageRejected as error:
                    assert "\n" not in error.message


def test_pictures_without_a_suffix_are_found_and_others_are_named(
    tmp_path: Path, imprompt: Imprompt
) -> None:
    """A file without an extension is read; JPEG 2000 is named, counted, and sets the exit code."""
    write(tmp_path / "picture.png").rename(tmp_path / "picture")
    (tmp_path / "LICENSE").write_text("no picture")
    write(tmp_path / "b.heic")
    other = write(tmp_path / "c.jp2")
    assert [path.name for path in find_images([tmp_path])] == ["b.heic", "picture"]
    assert find_images_and_unreadable([tmp_path]) == (find_images([tmp_path]), [other])
    done = imprompt("extract", tmp_path)
    assert done.code == 3
    assert "2 of 3 files contain a prompt" in done.err
    assert "c.jp2: .jp2 files are not supported. Save it as PNG or JPEG." in done.err


def test_a_missing_package_is_named(
    tmp_path: Path, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by its path the file says what to install; in a folder it is listed."""
    path = write(tmp_path / "b.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageRejected,
        match=f"HEIC needs packages that are not installed.*{re.escape(install_extra('formats'))}",
    ):
        open_image(path)
    monkeypatch.setattr("imprompt.images.image_files.find_spec", lambda name: None)
    done = imprompt("extract", tmp_path / "..", tmp_path)
    assert install_extra("formats") in done.err
    assert done.code in (3, 32)
