"""Pictures in memory as image files, and thumbnails."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from imprompt.core.errors import ConfigError, ImpromptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

ImageLike: TypeAlias = "str | Path | bytes | Image | NDArray[np.uint8]"
"""A path, the bytes of an image file, a Pillow image, or (h, w, 3) or (h, w) uint8 pixels."""

THUMBNAIL_PX = 192


def image_source(image: ImageLike) -> Path | bytes:
    """Return the path or the bytes of an image file; pixels become a PNG without metadata.

    Raises:
        ConfigError: it is none of the types, or an array of another shape or type.
    """
    from PIL import Image, ImageOps

    if isinstance(image, str):
        return Path(image)
    if isinstance(image, Path | bytes):
        return image
    if not isinstance(image, Image.Image):
        image = _of_pixels(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        upright = upright.convert("RGB")
    file = io.BytesIO()
    upright.save(file, "PNG", compress_level=1)
    return file.getvalue()


def thumbnail(image: Path | bytes) -> str:
    """Return a small picture as a data URL; "" if the image cannot be read."""
    from imprompt.images.decode import open_image, small_jpeg

    try:
        picture = open_image(image, enough_px=THUMBNAIL_PX)
    except ImpromptError:
        return ""
    jpeg = small_jpeg(picture, THUMBNAIL_PX)
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}"


def _of_pixels(pixels: Any) -> Image:
    import numpy as np
    from PIL import Image

    hint = "Give (height, width, 3) or (height, width) values from 0 to 255 as uint8."
    if not isinstance(pixels, np.ndarray):
        raise ConfigError(f"{type(pixels).__name__} is not an image.", hint=hint)
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ConfigError(
            f"An array of {pixels.dtype} with the shape {pixels.shape} is not an image.", hint=hint
        )
    if not pixels.size:
        raise ConfigError(f"An array of the shape {pixels.shape} has no pixels.", hint=hint)
    return Image.fromarray(np.ascontiguousarray(pixels))
