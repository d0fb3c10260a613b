"""Prompts in the lowest bits of the transparency, and pixels that only look like one."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imprompt.core.errors import ImageRejected
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from tests.images.builders import png
from tests.images.hostile_files import picture_bytes
from tests.images.tool_files import stealth


def read_hidden_prompt(path: Path) -> EmbeddedPrompt | None:
    """Return the prompt in the pixels of a file whose texts have none."""
    assert read_embedded_prompt(path) is None
    return read_embedded_prompt(path, hidden=True)


TEXT = "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42"


@pytest.mark.parametrize("size", [(96, 96), (40, 200), (300, 7), (2000, 1)])
@pytest.mark.parametrize("packed", [True, False])
def test_columns_of_any_height_are_read(
    size: tuple[int, int], packed: bool, tmp_path: Path
) -> None:
    """Heights that are no multiple of eight, a text over many columns."""
    (tmp_path / "a.png").write_bytes(stealth(TEXT, packed=packed, size=size))
    if size == (2000, 1):
        with pytest.raises(ImageRejected, match="one side"):
            read_hidden_prompt(tmp_path / "a.png")
        return
    found = read_hidden_prompt(tmp_path / "a.png")
    assert found is not None
    assert (found.prompt, found.settings["seed"]) == ("a fox", "42")


def test_lossless_webp_keeps_it(tmp_path: Path) -> None:
    """Saved again without loss, without any text beside the pixels."""
    with Image.open(BytesIO(stealth(TEXT, packed=True))) as picture:
        picture.save(tmp_path / "a.webp", lossless=True, exact=True)
    found = read_hidden_prompt(tmp_path / "a.webp")
    assert found is not None
    assert found.prompt == "a fox"


def bits(data: bytes) -> bytes:
    """A picture whose alpha begins with the bits of `data`."""
    alpha = np.zeros(64 * 64, np.uint8)
    spread = np.unpackbits(np.frombuffer(data, np.uint8))[: alpha.size]
    alpha[: len(spread)] = spread
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :, 3] = alpha.reshape(64, 64).T
    return png(pixels, colour=6)


BOMB = gzip.compress(bytes(64 << 20))[:400]
CASES = {
    "no transparency": picture_bytes("PNG"),
    "JPEG": picture_bytes("JPEG"),
    "plain": bits(b""),
    "a length beyond the picture": bits(b"stealth_pnginfo" + b"\xff" * 4 + b"a"),
    "not packed": bits(b"stealth_pngcomp" + (800).to_bytes(4, "big") + b"x" * 100),
    "a bomb": bits(b"stealth_pngcomp" + (8 * len(BOMB)).to_bytes(4, "big") + BOMB),
    "no text": bits(b"stealth_pnginfo" + bytes(4)),
    "bad UTF-8": bits(b"stealth_pnginfo" + (800).to_bytes(4, "big") + b"\xff" * 100),
    "a list": bits(b"stealth_pnginfo" + (16).to_bytes(4, "big") + b"[]"),
    "truncated": stealth(TEXT, packed=True)[:-60],
    "one pixel": png(np.zeros((1, 1, 4), np.uint8), colour=6),
}


@pytest.mark.parametrize("case", CASES)
def test_other_pictures_hide_nothing(case: str, tmp_path: Path) -> None:
    """No exception, no wait, no memory for what would be unpacked."""
    (tmp_path / "a.png").write_bytes(CASES[case])
    assert read_hidden_prompt(tmp_path / "a.png") is None
