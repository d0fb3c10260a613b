"""The texts that NovelAI and an extension of AUTOMATIC1111 hide in the lowest bits of the pixels.

Column by column from the left, in the transparency or, where there is none, in red, green and blue:
a signature, the number of bits that follow (32 bits), and the text, gzipped or not. sd-parsers
reads it, too, but only in the transparency, in a loop over every pixel in Python, and without a
limit to what is unpacked.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imprompt.images.image_opening import ImageLimits, opened_header, quiet_pillow
from imprompt.images.metadata.file_texts import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN, _PACKED = b"stealth_pnginfo", b"stealth_pngcomp"
_SIGNATURES = {_PLAIN: False, _PACKED: True, b"stealth_rgbinfo": False, b"stealth_rgbcomp": True}
_HEAD_BYTES = len(_PLAIN) + 4
_GZIP = 16 + zlib.MAX_WBITS
# Lossy formats do not keep the lowest bits; WebP may be lossless.
_FORMATS = ("PNG", "WEBP")


def read_hidden_texts(source: Path | bytes, *, limits: ImageLimits) -> dict[str, str]:
    """Return the texts in the pixels by keyword; only PNG and WebP files are decoded for them.

    Returns:
        Empty where there are none, or where the picture cannot be decoded.

    Raises:
        ImageRejected: the file (or the bytes of one) cannot be opened as an image.
    """
    with opened_header(source, limits=limits) as image:
        if image.format not in _FORMATS or image.mode not in ("RGBA", "RGB"):
            return {}
        try:
            with quiet_pillow():
                pixels = np.asarray(image)
        except Exception:  # noqa: BLE001 -- decoding for the picture itself reports the error
            return {}
    text = _hidden_text(pixels[:, :, 3:]) if pixels.shape[2] == 4 else ""
    return _by_keyword(text or _hidden_text(pixels[:, :, :3]))


def _hidden_text(channels: NDArray[np.uint8]) -> str:
    """Return the text in the lowest bits of (height, width, channels); empty without one."""
    head = _lowest_bits(channels, 0, _HEAD_BYTES)
    signature, n_bytes = head[: len(_PLAIN)], int.from_bytes(head[len(_PLAIN) :], "big") // 8
    if signature not in _SIGNATURES or n_bytes > min(MAX_TEXT_BYTES, channels.size // 8):
        return ""
    body = _lowest_bits(channels, _HEAD_BYTES, n_bytes)
    try:
        if _SIGNATURES[signature]:
            unpacker = zlib.decompressobj(_GZIP)
            body = unpacker.decompress(body, MAX_TEXT_BYTES)
            if unpacker.unconsumed_tail:
                return ""
        return body.decode("utf-8")
    except (zlib.error, UnicodeDecodeError):
        return ""


def _lowest_bits(channels: NDArray[np.uint8], start: int, n_bytes: int) -> bytes:
    """Return bytes from byte `start` on; only the columns that hold them are read."""
    in_column = channels.shape[0] * channels.shape[2]
    first, last = 8 * start // in_column, -(-8 * (start + n_bytes) // in_column)
    columns = (channels[:, first:last] & 1).transpose(1, 0, 2)
    bits = columns.reshape(-1)[8 * start - first * in_column :]
    return np.packbits(bits[: 8 * n_bytes]).tobytes()


def _by_keyword(text: str) -> dict[str, str]:
    """Return PNG's texts by keyword, as NovelAI packs them, or AUTOMATIC1111's single text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"parameters": text} if text else {}
    if not isinstance(value, dict):
        return {}
    return {
        str(key): item if isinstance(item, str) else json.dumps(item) for key, item in value.items()
    }
