"""Files that must be refused, each with a phrase of its reason."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tests.images.builders import png, png_chunk, png_header, text_bomb


def saved(picture: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def picture_bytes(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return saved(Image.fromarray(noise), kind)


def write(data: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


def gif_of(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + width.to_bytes(2, "little")
        + height.to_bytes(2, "little")
        + picture_bytes("GIF")[10:]
    )


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda path: None, "there is no such file"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "there is no such file"),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be opened"),
    "folder": (Path.mkdir, "a folder, not an image file"),
    "named pipe": (os.mkfifo, "a named pipe"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "empty": (write(b""), "the file is empty"),
    "text": (write(b"not an image at all\n"), "not an image in a supported format (PNG, JPEG"),
    "PostScript": (
        write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "not an image in a supported format",
    ),
    "icon": (write(picture_bytes("ICO")), "not an image in a supported format"),
    "floating point": (
        write(saved(Image.new("F", (8, 8), 0.5), "TIFF")),
        "pixels of mode F are not supported",
    ),
    "truncated JPEG": (write(picture_bytes("JPEG")[:-900]), "the JPEG is truncated"),
    "truncated PNG": (write(picture_bytes("PNG")[:-900]), "the PNG is truncated"),
    "truncated GIF": (write(picture_bytes("GIF")[:-900]), "the GIF is truncated"),
    "truncated BMP": (write(picture_bytes("BMP")[:-900]), "the BMP is truncated"),
    "truncated WebP": (write(picture_bytes("WEBP")[:-900]), "the WebP header is damaged"),
    "truncated AVIF": (write(picture_bytes("AVIF")[:-900]), "the AVIF header is damaged"),
    "signature only": (write(b"\x89PNG\r\n\x1a\n"), "the PNG header is damaged"),
    "JPEG start only": (write(b"\xff\xd8\xff"), "the JPEG header is damaged"),
    "40,000 x 40,000 PNG": (
        write(png_header(40_000, 40_000) + png_chunk(b"IDAT", zlib.compress(b"\0"))),
        "40,000 x 40,000 pixels (1,600,000,000), the limit is 100,000,000",
    ),
    "40,000 x 40,000 GIF": (
        write(gif_of(40_000, 40_000)),
        "40,000 x 40,000 pixels (1,600,000,000), the limit is 100,000,000",
    ),
    "just above the limit": (
        write(png_header(10_001, 10_000) + png_chunk(b"IDAT", b"")),
        "the limit is 100,000,000",
    ),
    "no pixels": (write(png_header(0, 7) + png_chunk(b"IDAT", b"")), "PNG"),
    "1 x 100,000": (
        write(png_header(1, 100_000) + png_chunk(b"IDAT", b"")),
        "one side may be at most 100 times the other",
    ),
    "zip bomb": (
        write(png(np.zeros((2, 2, 3), np.uint8), colour=2, before=text_bomb(64))),
        "has more than 1,048,576 bytes",
    ),
    "zip bomb behind": (
        write(png(np.zeros((2, 2, 3), np.uint8), colour=2, after=text_bomb(64))),
        "has more than 1,048,576 bytes",
    ),
    "65 MB of text": (
        lambda path: write(
            png(
                np.zeros((2, 2, 3), np.uint8),
                colour=2,
                before=png_chunk(b"tEXt", b"a\0" + bytes(65 << 20)),
            )
        )(path),
        "the texts in the PNG have more than 67,108,864 bytes",
    ),
    "broken checksum": (
        write(picture_bytes("PNG")[:16] + b"\x01" + picture_bytes("PNG")[17:]),
        "the PNG header is damaged",
    ),
}
