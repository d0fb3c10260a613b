"""The prompt that NovelAI and an extension of AUTOMATIC1111 hide in the pixels: the lowest bits of the transparency.

Column by column from the left: a signature, the number of bits that follow (32 bits), and the text, gzipped or not. sd-parsers
reads it, too, in a loop over every pixel in Python, and without a limit to what is unpacked.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from images.embedded import EmbeddedPrompt, prompt_of_texts
from images.metadata import MAX_TEXT_BYTES
from images.opening import DEFAULT_LIMITS, ImageLimits, opened_header, quiet_pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN, _PACKED = b"stealth_pnginfo", b"stealth_pngcomp"
_HEAD_BYTES = len(_PLAIN) + 4
_GZIP = 16 + zlib.MAX_WBITS
# Lossy formats do not keep the lowest bits; WebP may be lossless.
_FORMATS = ("PNG", "WEBP")


def read_hidden_prompt(source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> EmbeddedPrompt | None:
    """The prompt hidden in the pixels of a picture with transparency; others are not decoded.

    Returns:
        None where there is none, or where the picture cannot be decoded.

    Raises:
        ImageRejected: the file (or the bytes of one) cannot be opened as an image.
    """
    with opened_header(source, limits=limits) as image:
        if image.format not in _FORMATS or image.mode != "RGBA":
            return None
        try:
            with quiet_pillow():
                alpha = np.asarray(image.getchannel("A"))
        except Exception:  # noqa: BLE001 -- whoever wants the pixels is told why they cannot be decoded
            return None
    text = _hidden_text(alpha)
    return prompt_of_texts(_texts(text)) if text else None


def _hidden_text(alpha: NDArray[np.uint8]) -> str:
    """The text in the lowest bits of (height, width) `alpha`; empty where there is none."""
    head = _bytes(alpha, 0, _HEAD_BYTES)
    signature, n_bytes = head[: len(_PLAIN)], int.from_bytes(head[len(_PLAIN) :], "big") // 8
    if signature not in (_PLAIN, _PACKED) or n_bytes > min(MAX_TEXT_BYTES, alpha.size // 8):
        return ""
    body = _bytes(alpha, _HEAD_BYTES, n_bytes)
    if signature == _PACKED:
        unpacker = zlib.decompressobj(_GZIP)
        try:
            body = unpacker.decompress(body, MAX_TEXT_BYTES)
        except zlib.error:
            return ""
        if unpacker.unconsumed_tail:
            return ""
    return body.decode("utf-8", "replace")


def _bytes(alpha: NDArray[np.uint8], start: int, n_bytes: int) -> bytes:
    """Bytes of the lowest bits, column by column, from byte `start` on; only the columns that hold them are touched."""
    height = alpha.shape[0]
    first, last = 8 * start // height, -(-8 * (start + n_bytes) // height)
    bits = (alpha[:, first:last] & 1).T.reshape(-1)[8 * start - first * height :]
    return np.packbits(bits[: 8 * n_bytes]).tobytes()


def _texts(text: str) -> dict[str, str]:
    """PNG's texts by keyword, as NovelAI packs them, or the one text of AUTOMATIC1111."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"parameters": text}
    if not isinstance(value, dict):
        return {}
    return {str(key): item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}
