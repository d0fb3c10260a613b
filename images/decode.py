"""One upright RGB picture from an untrusted image file."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.errors import ImageRejected
from imprompt.images.bounds import check_memory
from imprompt.images.image_opening import (
    DEFAULT_LIMITS,
    ImageLimits,
    describe,
    opened_structure,
    packed_text,
    quiet_pillow,
    source_name,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

ENOUGH_PX = 768
"""Pixels of the shorter side that are enough for every model.

They are twice the 384 of the largest common CLIP towers, and 1.6 times the 480 of OFA. All callers
that answer use it, so that a file has one answer.
"""

_STRIP_ROWS = 256
"""Rows that are composited and shrunk at once; a multiple of every factor."""
_ORIENTATION_TAG = 0x0112
_WHITE = (255, 255, 255, 255)
_READ_MODES = frozenset(
    {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L"}
)


def open_image(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS, enough_px: int | None = None
) -> Image:
    """Return the picture as a viewer shows it: upright by its EXIF, on white, the first frame.

    Sixteen bits are scaled to eight. Colour profiles are not applied.

    Args:
        source: a file, or an image file's bytes.
        limits: on the file and its header, checked before pixels are decoded.
        enough_px: shrink the picture to 1/2, 1/4 or 1/8 where its shorter side keeps at least this
            many pixels; None keeps all pixels. A JPEG is decoded at that size, which takes a
            fraction of the time and memory.

    Returns:
        A Pillow image of mode "RGB" without an open file or metadata.

    Raises:
        ImageRejected: the file is missing, not an image of a known format, damaged, truncated, or
            beyond a limit.
    """
    with opened_structure(source, limits=limits, decode=True) as (image, structure):
        name = source_name(source)
        if image.mode not in _READ_MODES:
            raise ImageRejected(name, f"pixels of mode {image.mode} are not supported")
        try:
            with quiet_pillow():
                size = image.size
                if enough_px is not None:
                    image.draft(None, (enough_px, enough_px))  # only affects JPEG
                factor = 1 if image.size != size else _factor(size, enough_px)
                core = 4 if structure.kind == "JPEG" else 0
                check_memory(image, structure, limits, further_bytes=core + 4 / factor**2)
                image.load()
                picture = _upright(_shrunk_on_white(image, factor), _orientation(image))
        except ImageRejected:
            raise
        except Exception as error:
            # Decoders raise any exception on damaged files.
            raise ImageRejected(name, _damage(image, error)) from error
    picture.info.clear()
    return picture


def small_jpeg(picture: Image, side_px: int, *, quality: int = 85) -> bytes:
    """Return an RGB picture as a JPEG that fits into a square, without any metadata."""
    small = picture.copy()
    small.thumbnail((side_px, side_px))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=quality)
    return written.getvalue()


def _damage(image: ImageFile, error: Exception) -> str:
    text = describe(error)
    if "truncated" in text or isinstance(error, EOFError):
        return f"the {image.format} is truncated"
    if isinstance(error, MemoryError):
        pixels = f"{image.width:,} x {image.height:,} pixels"
        return f"the {image.format} of {pixels} does not fit into memory"
    return packed_text(error) or f"the {image.format} is damaged ({text})"


def _factor(size: tuple[int, int], enough_px: int | None) -> int:
    """Return 1, 2, 4 or 8 as libjpeg would: the shorter side keeps at least `enough_px`."""
    if enough_px is None:
        return 1
    return next((factor for factor in (8, 4, 2) if min(size) // factor >= enough_px), 1)


def _shrunk_on_white(image: ImageFile, factor: int) -> Image:
    """Return RGB by the mean of each `factor` x `factor` pixels, composited on white.

    It works strip by strip, so that memory never holds a second copy of the whole picture.
    """
    from PIL import Image

    transparency = image.info.get("transparency")
    if isinstance(transparency, tuple) and max(transparency) > 255:
        # Pillow keeps only the upper byte of 16-bit pixels, but both of the transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    width, height = image.size
    picture = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, _STRIP_ROWS):
        strip = _on_white(image.crop((0, top, width, min(top + _STRIP_ROWS, height))))
        picture.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    return picture


def _on_white(strip: Image) -> Image:
    """Return RGB, composited on white."""
    from PIL import Image

    if strip.mode.startswith("I;16"):
        return _from_sixteen_bits(strip)
    opaque = "A" not in strip.mode and strip.info.get("transparency") is None
    if opaque or (strip.mode == "RGBA" and strip.getchannel("A").getextrema() == (255, 255)):
        return strip.convert("RGB")
    layer = strip.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")


def _from_sixteen_bits(image: Image) -> Image:
    """Return 16-bit grey scaled to 0..255 by rounding; Pillow's conversion clips at 255."""
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)
    transparency = image.info.get("transparency")
    if isinstance(transparency, int):
        grey[values == transparency] = 255
    return Image.fromarray(grey).convert("RGB")


def _orientation(image: ImageFile) -> int:
    """Return the EXIF orientation, 1..8; 1 (upright) where it is missing or cannot be read."""
    # Pillow's parser raises any exception on odd EXIF, whose pixels are fine all the same.
    with suppress(Exception):
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        if isinstance(value, int) and 1 <= value <= 8:
            return value
    return 1


def _upright(picture: Image, orientation: int) -> Image:
    """Return the picture turned upright, by the EXIF orientation (CIPA DC-008, tag 274)."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return picture.transpose(turns[orientation]) if orientation in turns else picture
