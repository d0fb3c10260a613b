"""The prompt that NovelAI and an extension of AUTOMATIC1111 hide in the pixels: in their lowest bits.

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

from imprompt.images.image_opening import DEFAULT_LIMITS, ImageLimits, opened_header, quiet_pillow
from imprompt.images.metadata.file_texts import MAX_TEXT_BYTES
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, prompt_of_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN, _PACKED = b"stealth_pnginfo", b"stealth_pngcomp"
_SIGNATURES = {_PLAIN: False, _PACKED: True, b"stealth_rgbinfo": False, b"stealth_rgbcomp": True}
_HEAD_BYTES = len(_PLAIN) + 4
_GZIP = 16 + zlib.MAX_WBITS
# Lossy formats do not keep the lowest bits; WebP may be lossless.
_FORMATS = ("PNG", "WEBP")


def read_hidden_prompt(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS
) -> EmbeddedPrompt | None:
    """Return the prompt hidden in the pixels of a picture whose format keeps their lowest bits; others are not decoded.

    Returns:
        None where there is none, or where the picture cannot be decoded.

    Raises:
        ImageRejected: the file (or the bytes of one) cannot be opened as an image.
    """
    with opened_header(source, limits=limits) as image:
        if image.format not in _FORMATS or image.mode not in ("RGBA", "RGB"):
            return None
        try:
            with quiet_pillow():
                pixels = np.asarray(image)
        except Exception:  # noqa: BLE001 -- whoever wants the pixels is told why they cannot be decoded
            return None
    text = _hidden_text(pixels[:, :, 3:]) if pixels.shape[2] == 4 else ""
    text = text or _hidden_text(pixels[:, :, :3])
    return prompt_of_texts(_texts(text)) if text else None


def _hidden_text(channels: NDArray[np.uint8]) -> str:
    """The text in the lowest bits of (height, width, channels); empty where there is none."""
    head = _bytes(channels, 0, _HEAD_BYTES)
    signature, n_bytes = head[: len(_PLAIN)], int.from_bytes(head[len(_PLAIN) :], "big") // 8
    if signature not in _SIGNATURES or n_bytes > min(MAX_TEXT_BYTES, channels.size // 8):
        return ""
    body = _bytes(channels, _HEAD_BYTES, n_bytes)
    if _SIGNATURES[signature]:
        unpacker = zlib.decompressobj(_GZIP)
        try:
            body = unpacker.decompress(body, MAX_TEXT_BYTES)
        except zlib.error:
            return ""
        if unpacker.unconsumed_tail:
            return ""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _bytes(channels: NDArray[np.uint8], start: int, n_bytes: int) -> bytes:
    """Bytes of the lowest bits, column by column, from byte `start` on; only the columns that hold them are touched."""
    in_column = channels.shape[0] * channels.shape[2]
    first, last = 8 * start // in_column, -(-8 * (start + n_bytes) // in_column)
    columns = (channels[:, first:last] & 1).transpose(1, 0, 2)
    bits = columns.reshape(-1)[8 * start - first * in_column :]
    return np.packbits(bits[: 8 * n_bytes]).tobytes()


def _texts(text: str) -> dict[str, str]:
    """PNG's texts by keyword, as NovelAI packs them, or the one text of AUTOMATIC1111."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"parameters": text}
    if not isinstance(value, dict):
        return {}
    return {
        str(key): item if isinstance(item, str) else json.dumps(item) for key, item in value.items()
    }
