"""Image files as clients send them."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

PARAMETERS = (
    "a small lighthouse on a cliff\nNegative prompt: people\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234"
)


def png(
    colour: tuple[int, int, int] = (200, 180, 20), *, parameters: str = "", side: int = 64
) -> bytes:
    """A picture of one colour, with AUTOMATIC1111's text where `parameters` is given."""
    text = PngInfo()
    if parameters:
        text.add_text("parameters", parameters)
    buffer = BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def b64(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")
