"""Hostile image files, made by code: each with what it tries and how it must end.

`IMAGES` is name -> (builder, what it tries, exit codes). A builder writes one thing at a path. The
codes are those of `query FILE`: 32 refused, 33 its texts refused, 0 answered at a usual price.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.images.builders import PNG_SIGNATURE, png, png_chunk, png_header

Builder = Callable[[Path], object]
Entry = tuple[Builder, str, tuple[int, ...]]
REFUSED, ANSWERED = (32,), (0,)
SIDE = 7000
"""A side of the large pictures: 49 million pixels, just inside of a server's limit."""


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file's bytes."""
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def small(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A good picture of 64 x 48 pixels."""
    noise = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return saved(Image.fromarray(noise).convert(mode), kind, **options)


@cache
def flat(kind: str, mode: str = "RGB", side: int = SIDE, **options: Any) -> bytes:
    """A large picture of one colour."""
    return saved(Image.new(mode, (side, side)), kind, **options)


# JPEG


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


@cache
def _empty_scan(side: int, *, refine: bool) -> bytes:
    """The shortest scan that makes a decoder visit each block: runs of empty blocks."""
    table = segment(0xC4, bytes([0x11, 1, 1] + [0] * 14 + [0xE0, 0x00]))
    blocks, bits = (-(-side // 8)) ** 2, ""
    while blocks >= 32767:
        bits, blocks = bits + "0" + "1" * 14, blocks - 32767
    bits += "0" + format(blocks - 16384, "014b") if blocks >= 16384 else "10" * blocks
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    header = segment(0xDA, bytes([1, 1, 0x11, 1, 63, 0x10 if refine else 0]))
    return table + header + data.replace(b"\xff", b"\xff\x00")


def scans(n: int, side: int = SIDE, *, refine: bool = False) -> bytes:
    """A progressive JPEG with `n` scans more than it needs."""
    whole = flat("JPEG", "L", side, progressive=True, quality=10)
    return whole[:-2] + _empty_scan(side, refine=refine) * n + b"\xff\xd9"


def with_segments(*segments: bytes) -> bytes:
    """A good JPEG with segments before its own."""
    whole = small("JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def exif(entries: int, data: bytes) -> bytes:
    """A TIFF block of `entries` tags that all point at the same `data`."""
    start = 8 + 2 + 12 * entries + 4
    tags = b"".join(struct.pack("<HHII", 1000 + n, 7, len(data), start) for n in range(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + tags + bytes(4) + data


# PNG, GIF, BMP, TIFF, WebP


def png_of(*chunks: bytes) -> bytes:
    """A good PNG of 2 x 2 pixels with chunks before its pixels."""
    return png(np.zeros((2, 2, 3), np.uint8), colour=2, before=b"".join(chunks))


def packed(kind: bytes, data: bytes, head: bytes = b"parameters\0\0") -> bytes:
    """A chunk of a packed text or profile."""
    return png_chunk(kind, head + zlib.compress(data, 9))


def run_length_bmp(width: int, height: int, data: bytes) -> bytes:
    """A BMP of run-length codes."""
    start = 54 + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 256)
    return head + info + bytes(1024) + data


def tiff(
    width: int, height: int, data: bytes = b"", *, compression: int = 1, **counts: int
) -> bytes:
    """A grey TIFF; `counts` says how many strips, bits or further tags it claims."""
    strips, bits, more = (counts.get(name, 1) for name in ("strips", "bits", "more"))
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, bits, 8 if bits == 1 else 2000),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, strips, 2000),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, strips, len(data) if strips == 1 else 2000),
        *((1000 + n, 7, len(data), 2000) for n in range(more - 1)),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(4)
    return head.ljust(2000, b"\0") + data


def gif_comment(n_blocks: int) -> bytes:
    """A GIF with a comment of many blocks before its picture."""
    whole = small("GIF")
    start = 13 + (3 << (whole[10] & 7) + 1)
    return whole[:start] + b"!\xfe" + (b"\xff" + bytes(255)) * n_blocks + b"\0" + whole[start:]


def webp_canvas(width: int, height: int, n_chunks: int = 0) -> bytes:
    """A WebP that announces a canvas, or that has many chunks, and holds no picture."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + sides
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + (b"JUNK" + bytes(4)) * n_chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animation(kind: str, n: int) -> bytes:
    """A picture of many frames."""
    frames = [Image.new("RGB", (64, 64), (at % 256, at // 256, 7)) for at in range(n)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def write(make: Callable[[], bytes]) -> Builder:
    """A builder of a file."""
    return lambda path: path.write_bytes(make())


def cut(kind: str, share: float) -> Builder:
    """A builder of a good file, cut."""
    return write(lambda: (data := small(kind))[: int(len(data) * share)])


_KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

IMAGES: dict[str, Entry] = {
    "scans-600": (write(partial(scans, 600)), "600 scans over 49 million pixels: 17 s", REFUSED),
    "scans-refined": (
        write(partial(scans, 60, refine=True)),
        "60 scans that refine: each twice as dear",
        REFUSED,
    ),
    "scans-many-small": (
        write(partial(scans, 1500, 1000)),
        "1,500 scans over a million pixels",
        REFUSED,
    ),
    "scans-within": (write(partial(scans, 14, refine=True)), "as many scans as pass", ANSWERED),
    "scans-in-tiff": (
        write(lambda: tiff(SIDE, SIDE, scans(60), compression=7)),
        "the scans inside of a TIFF, whose decoder is another",
        REFUSED,
    ),
    "jpeg-arithmetic": (
        write(lambda: scans(14, refine=True).replace(b"\xff\xc2", b"\xff\xca", 1)),
        "scans of arithmetic codes, each many times as dear",
        REFUSED,
    ),
    "jpeg-fill": (
        write(lambda: b"\xff\xd8" + b"\xff" * 8_000_000),
        "8 million fill bytes before a marker",
        REFUSED,
    ),
    "jpeg-junk": (
        write(lambda: b"\xff\xd8\xff" + b"\0\xff" * 4_000_000),
        "8 million bytes of junk before a marker",
        REFUSED,
    ),
    "jpeg-comments": (
        write(lambda: with_segments(segment(0xFE, b"") * 500_000)),
        "half a million comments",
        REFUSED,
    ),
    "jpeg-exif-quadratic": (
        write(lambda: with_segments(segment(0xE1, b"Exif\0\0" + bytes(2000)) * 900)),
        "EXIF in 900 parts, which are joined one by one",
        (33,),
    ),
    "jpeg-exif-overlap": (
        write(lambda: with_segments(segment(0xE1, b"Exif\0\0" + exif(2000, bytes(40_000))))),
        "2,000 EXIF fields that share 40 kB",
        ANSWERED,
    ),
    "webp-exif-large": (
        write(lambda: saved(Image.new("RGB", (64, 64)), "WEBP", exif=exif(9, bytes(9 << 20)))),
        "9 MB of EXIF",
        ANSWERED,
    ),
    "png-chunks": (
        write(lambda: png_of(png_chunk(b"abCd", b"") * 1_500_000)),
        "1.5 million empty chunks: 4 s to open, three times",
        REFUSED,
    ),
    "png-chunks-behind": (
        write(lambda: small("PNG")[:-12] + png_chunk(b"abCd", b"") * 300_000 + small("PNG")[-12:]),
        "300,000 empty chunks behind the pixels",
        REFUSED,
    ),
    "png-flat": (write(partial(flat, "PNG", "RGBA")), "208 kB that take 328 MiB", REFUSED),
    "png-sixteen-bits": (
        write(lambda: saved(Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)), "PNG")),
        "95 kB that took 654 MiB",
        ANSWERED,
    ),
    "png-40000": (
        write(lambda: png_header(40_000, 40_000) + png_chunk(b"IDAT", zlib.compress(b"\0"))),
        "1.6 billion pixels",
        REFUSED,
    ),
    "png-ztxt": (
        write(lambda: png_of(packed(b"zTXt", bytes(64 << 20)))),
        "64 kB that unpack to 64 MiB of text",
        REFUSED,
    ),
    "png-itxt": (
        write(lambda: png_of(packed(b"iTXt", bytes(64 << 20), b"parameters\0\1\0\0\0"))),
        "the same as iTXt",
        REFUSED,
    ),
    "png-iccp": (
        write(lambda: png_of(packed(b"iCCP", bytes(64 << 20), b"icc\0\0"))),
        "the same as a profile",
        REFUSED,
    ),
    "png-ztxt-many": (
        write(lambda: png_of(packed(b"zTXt", b"a" * 1_000_000) * 70)),
        "70 texts of a megabyte each, 70 kB packed",
        REFUSED,
    ),
    "png-exif-overlap": (
        write(lambda: png_of(png_chunk(b"eXIf", exif(5000, bytes(4_000_000))))),
        "5,000 EXIF fields that share 4 MB",
        ANSWERED,
    ),
    "webp-lossless": (
        write(partial(flat, "WEBP", lossless=True)),
        "1.9 kB that take 753 MiB",
        REFUSED,
    ),
    "webp-lossy": (write(partial(flat, "WEBP")), "87 kB that take 749 MiB", REFUSED),
    "webp-canvas": (
        write(partial(webp_canvas, 16_384, 16_384)),
        "44 bytes that announce 268 million pixels",
        REFUSED,
    ),
    "webp-chunks": (
        write(partial(webp_canvas, 64, 64, 1_000_000)),
        "a million empty chunks",
        REFUSED,
    ),
    "webp-frames": (write(partial(animation, "WEBP", 1000)), "1,000 frames", ANSWERED),
    "avif-flat": (write(partial(flat, "AVIF", speed=10)), "1.4 kB that take 477 MiB", REFUSED),
    "gif-comment": (
        write(partial(gif_comment, 60_000)),
        "a comment of 15 MB in 60,000 blocks",
        REFUSED,
    ),
    "gif-frames": (write(partial(animation, "GIF", 2000)), "2,000 frames", ANSWERED),
    "gif-40000": (
        write(lambda: b"GIF89a" + struct.pack("<HH", 40_000, 40_000) + small("GIF")[10:]),
        "a canvas of 1.6 billion pixels",
        REFUSED,
    ),
    "apng-frames": (write(partial(animation, "PNG", 3000)), "3,000 frames of an APNG", ANSWERED),
    "bmp-run-lengths": (
        write(lambda: run_length_bmp(100, 100, bytes(8_000_000))),
        "4 million empty runs",
        REFUSED,
    ),
    "bmp-line-ends": (
        write(lambda: run_length_bmp(SIDE, SIDE, b"\1\1\0\0" * SIDE)),
        "29 kB that fill 49 million pixels one by one",
        REFUSED,
    ),
    "tiff-strips": (
        write(lambda: tiff(8, 8, bytes(8_000_000), strips=2_000_000)),
        "2 million strips",
        REFUSED,
    ),
    "tiff-bits": (
        write(lambda: tiff(8, 8, bytes(8_000_000), bits=4_000_000)),
        "4 million bits a sample",
        REFUSED,
    ),
    "tiff-tags": (
        write(lambda: tiff(8, 8, bytes(8_000_000), more=20)),
        "20 tags that share 8 MB",
        ANSWERED,
    ),
    "tiff-flat": (
        write(partial(flat, "TIFF", compression="tiff_adobe_deflate")),
        "226 kB that may take 374 MiB",
        REFUSED,
    ),
    "tiff-orientation": (
        write(lambda: saved(Image.new("RGB", (64, 48)), "TIFF", tiffinfo={274: 6})),
        "a turn that the decoder makes itself",
        ANSWERED,
    ),
    "html-png": (
        write(lambda: b"<html><script>alert(1)</script>" + small("PNG")),
        "a page and a PNG",
        REFUSED,
    ),
    "jpeg-zip": (
        write(lambda: small("JPEG") + b"PK\3\4" + bytes(200)),
        "a JPEG and an archive",
        ANSWERED,
    ),
    "pdf-png": (write(lambda: b"%PDF-1.7\n" + small("PNG")), "a PDF and a PNG", REFUSED),
    "gif-jpeg": (
        write(lambda: small("GIF")[:40] + small("JPEG")),
        "the head of a GIF, the body of a JPEG",
        REFUSED,
    ),
    "postscript": (
        write(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n"),
        "PostScript, which runs",
        REFUSED,
    ),
    "svg": (
        write(
            lambda: (
                b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
            )
        ),
        "SVG",
        REFUSED,
    ),
    "empty": (write(bytes), "nothing", REFUSED),
    "signature": (write(lambda: PNG_SIGNATURE), "a signature alone", REFUSED),
    "pipe": (os.mkfifo, "a pipe that nobody writes to", REFUSED),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device without an end", REFUSED),
    "dangling": (lambda path: path.symlink_to("nowhere"), "a link to nothing", REFUSED),
    "loop": (lambda path: path.symlink_to(path), "a link to itself", REFUSED),
    **{
        f"cut-{kind.lower()}": (cut(kind, 0.6), f"a {kind} that was cut short", REFUSED)
        for kind in _KINDS
    },
}

NAMES: dict[str, tuple[bytes, str]] = {
    "escape": (b"\x1b]0;title\x07\x1b[2J.png", "a name that clears the terminal"),
    "line-end": (b"a\nerror: nothing.png", "a name that looks like two lines"),
    "no-utf-8": (b"caf\xe9\xff.png", "a name that is not UTF-8"),
    "option": (b"--index=x.png", "a name that looks like an option"),
    "right-to-left": ("\u202egnp.exe.png".encode(), "a name that reads backwards"),
}
"""Names of files: name -> (bytes, what it tries)."""


def good() -> bytes:
    """Good files to compare the hostile ones with."""
    return small("PNG")
