"""What one image file may cost, and how that is known before a decoder sees it.

Bytes and pixels alone bound nothing: 600 scans of a progressive JPEG, a million empty chunks of a
PNG or a picture of one colour make dear work of a small file. `inspect` walks a file's structure,
never its pixels, in one pass that stops at the first limit; `check_work` and `check_memory` weigh
what was found. docs/security.md gives the reasons for the figures.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from imprompt.core.errors import ImageRejected, MetadataRejected

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is read at most of one image file.

    Args:
        max_bytes: of the file.
        max_pixels: by its header.
        max_aspect: how many times one side may be longer than the other. Encoders scale the shorter
            side up: 1 x 100,000 pixels would become 224 x 22,400,000.
        max_scanned_pixels: pixels times scans of a JPEG; each scan goes over all pixels again.
        max_parts: chunks, segments, blocks or tags of the file, each of which is read in Python.
        max_exif_bytes: of a JPEG's EXIF blocks together, which are joined one by one.
        max_run_length_work: bytes plus pixels of a run-length BMP, which is decoded in Python.
        free_memory: that a decoder may need for any file.
        memory_a_byte: that it may need further for each byte of the file.
        max_memory: that it may need in all.
    """

    max_bytes: int = 256 << 20
    max_pixels: int = 100_000_000
    max_aspect: int = 100
    max_scanned_pixels: int = 1_000_000_000
    max_parts: int = 50_000
    max_exif_bytes: int = 8 << 20
    max_run_length_work: int = 4_000_000
    free_memory: int = 256 << 20
    memory_a_byte: int = 100
    max_memory: int = 1 << 30


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class Structure:
    """What a file's structure says: its bytes, the canvas where it is known (WebP), a JPEG's scans
    and the coefficients that it holds for each pixel. `name` is what a message calls the file."""

    name: str
    kind: str
    n_bytes: int
    canvas: tuple[int, int] | None = None
    scans: float = 1
    coefficients: float = 0


_SAVE_AGAIN = "Save the picture again as a plain PNG or JPEG."
_SMALLER = "Make the picture smaller."

# Pixels in Pillow's memory: modes that are not named take four bytes. Whoever looks for hidden
# text has three more of RGBA.
_CORE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "RGBA": 7}
# What a decoder holds beside them, bytes a pixel: libwebp two canvases and a copy of one; libavif
# its planes and a copy; libtiff a strip, which may be the whole picture.
_BESIDE_BYTES = {"WebP": 12, "AVIF": 8, "HEIC": 8, "TIFF": 4, "GIF": 1, "BMP": 1}
# Formats that are decoded as they are opened, before a mode is known: bytes a pixel in all.
_EAGER_BYTES = {"JPEG XL": 32}


def inspect(
    file: IO[bytes], kind: str, name: str, limits: ImageLimits, *, decode: bool
) -> Structure:
    """Walk the structure of a file of one of `imprompt.images.image_opening.FORMATS`; the file is back at its start.

    Args:
        decode: pixels will be decoded: count the scans, for which a JPEG is read to its end.

    Raises:
        MetadataRejected: a JPEG's EXIF is larger than is read.
        ImageRejected: the file has more parts than are read.
    """
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    walk = _WALKS.get(kind)
    found = (
        walk(file, _Parts(name, kind, n_bytes, limits, decode=decode))
        if walk
        else Structure(name, kind, n_bytes)
    )
    file.seek(0)
    return found


def check_eager(found: Structure, limits: ImageLimits) -> None:
    """Raise `ImageRejected` where a format is decoded as it is opened, and needs too much memory for that."""
    if found.canvas is not None and found.kind in _EAGER_BYTES:
        _check_memory(found, limits, size=found.canvas, a_pixel=_EAGER_BYTES[found.kind])


def check_pixels(size: tuple[int, int], kind: str, name: str, limits: ImageLimits) -> None:
    """Raise `ImageRejected` where a picture has no pixels, too many, or one side far too long."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageRejected(name, f"the {kind} has no pixels ({width} x {height})")
    shown = f"{width:,} x {height:,} pixels"
    if width * height > limits.max_pixels:
        reason = f"the {kind} has {shown} ({width * height:,}), the limit is {limits.max_pixels:,}"
        raise ImageRejected(name, reason, hint=_SMALLER)
    if max(width, height) > limits.max_aspect * min(width, height):
        reason = (
            f"the {kind} has {shown}, one side may be at most {limits.max_aspect} times the other"
        )
        raise ImageRejected(name, reason, hint="Cut the picture to a usual shape.")


def check_work(image: ImageFile, found: Structure, limits: ImageLimits) -> None:
    """Raise `ImageRejected` where decoding at any size would cost too much time or memory."""
    pixels = image.width * image.height
    scanned = round(pixels * found.scans)
    if found.scans > 1 and scanned > limits.max_scanned_pixels:
        reason = (
            f"the {found.kind} has {found.scans:,.0f} scans of {pixels:,} pixels ({scanned:,}), "
            f"the limit is {limits.max_scanned_pixels:,}"
        )
        raise ImageRejected(found.name, reason, hint=_SAVE_AGAIN)
    work = pixels + found.n_bytes
    if (
        image.info.get("compression") in (1, 2)
        and found.kind == "BMP"
        and work > limits.max_run_length_work
    ):
        limit = f"the limit is {limits.max_run_length_work:,}"
        reason = f"the run-length BMP has {work:,} pixels and bytes, {limit}"
        raise ImageRejected(found.name, reason, hint=_SAVE_AGAIN)
    check_memory(image, found, limits, beside=0)


def check_memory(image: ImageFile, found: Structure, limits: ImageLimits, *, beside: float) -> None:
    """Raise `ImageRejected` where decoding needs more memory than a file of its size may ask for.

    `beside` is what the caller holds beside the decoder, bytes a pixel.
    """
    a_pixel: float = _CORE_BYTES.get(image.mode, 4) + _BESIDE_BYTES.get(found.kind, 0)
    if found.kind == "JPEG":  # its decoder shrinks as it goes; only coefficients keep their number
        a_pixel = 2 * found.coefficients
    _check_memory(found, limits, size=image.size, a_pixel=a_pixel + beside)


def _check_memory(
    found: Structure, limits: ImageLimits, *, size: tuple[int, int], a_pixel: float
) -> None:
    width, height = size
    needed = round(width * height * a_pixel)
    allowed = min(limits.max_memory, limits.free_memory + limits.memory_a_byte * found.n_bytes)
    if needed > allowed:
        reason = (
            f"the {found.kind} of {found.n_bytes:,} bytes needs {needed:,} bytes of memory for its "
            f"{width:,} x {height:,} pixels, the limit is {allowed:,}"
        )
        raise ImageRejected(found.name, reason, hint=_SMALLER)


class _Parts:
    """Counts the parts of one file."""

    def __init__(
        self, name: str, kind: str, n_bytes: int, limits: ImageLimits, *, decode: bool
    ) -> None:
        self.found = Structure(name, kind, n_bytes)
        self.limits = limits
        self.decode = decode
        self._n = 0

    def count(self, n: int = 1) -> None:
        """Count `n` further parts, or raise `ImageRejected`."""
        self._n += n
        if self._n > self.limits.max_parts:
            reason = f"the {self.found.kind} has more than {self.limits.max_parts:,} parts"
            raise ImageRejected(self.found.name, reason, hint=_SAVE_AGAIN)


def _walk_png(file: IO[bytes], parts: _Parts) -> Structure:
    file.seek(8)
    while len(header := file.read(8)) == 8:
        parts.count()
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND":
            break
        file.seek(length + 4, os.SEEK_CUR)
    return parts.found


def _walk_gif(file: IO[bytes], parts: _Parts) -> Structure:
    """Only what stands before the first frame is read of a GIF."""
    flags = file.read(13)[10:11] or b"\0"
    file.seek(3 << (flags[0] & 7) + 1 if flags[0] & 128 else 0, os.SEEK_CUR)
    while (mark := file.read(1)) and mark not in b";,":
        parts.count()
        if mark != b"!":
            continue
        file.seek(1, os.SEEK_CUR)
        while (length := file.read(1)) not in (b"", b"\0"):
            parts.count()
            file.seek(length[0], os.SEEK_CUR)
    return parts.found


def _walk_webp(file: IO[bytes], parts: _Parts) -> Structure:
    head = file.read(30)
    canvas = None
    if head[12:16] == b"VP8X" and len(head) == 30:
        sides = head[24:27] + b"\0" + head[27:30] + b"\0"
        width, height = struct.unpack("<II", sides)
        canvas = (width + 1, height + 1)
    file.seek(12)
    while len(header := file.read(8)) == 8:
        parts.count()
        (length,) = struct.unpack("<I", header[4:])
        file.seek(length + (length & 1), os.SEEK_CUR)
    return replace(parts.found, canvas=canvas)


_NEXT_IN_SCAN = re.compile(rb"\xff[^\xff\x00\xd0-\xd7]")
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_MAX_SEGMENTS = 1000
"""Segments before the pixels, 64 MB of them."""
_MAX_EXIF_BLOCKS = 128
"""Segments of EXIF, 8 MB of them: Pillow joins them one by one, in quadratic time."""


def _walk_jpeg(file: IO[bytes], parts: _Parts) -> Structure:
    """Read segments up to the pixels, and count the scans where there may be several."""
    frame, progressive, exif, blocks, segments = b"", False, 0, 0, 0
    file.seek(2)
    while byte := file.read(1):
        parts.count()  # junk and fill bytes are parts, too: Pillow reads them one by one
        if byte != b"\xff":
            continue
        while (byte := file.read(1)) == b"\xff":
            parts.count()
        if not byte or byte[0] == _EOI:
            break
        marker = byte[0]
        if marker in _ALONE:
            continue
        length = int.from_bytes(file.read(2), "big") - 2
        segments += 1
        if segments > _MAX_SEGMENTS:
            reason = f"the JPEG has more than {_MAX_SEGMENTS:,} segments before its pixels"
            raise ImageRejected(parts.found.name, reason, hint=_SAVE_AGAIN)
        body = file.read(max(length, 0)) if marker in _FRAMES | {_SOS, _APP1} else b""
        if marker == _SOS:
            # libjpeg ends after the first scan of a sequential file where that scan has all
            # components.
            if not progressive and body[:1] == frame[5:6]:
                break
            scans = 1 + (_further_scans(file.read(), parts) if parts.decode else 0)
            return replace(parts.found, scans=scans, coefficients=_coefficients(frame))
        if marker in _FRAMES:
            if marker not in _SEQUENTIAL and marker != _PROGRESSIVE:
                # Arithmetic codes take a decision for each coefficient, from no bytes at all.
                reason = f"a JPEG of coding {marker - 0xC0} (arithmetic, lossless or hierarchical) is not read"
                raise ImageRejected(parts.found.name, reason, hint=_SAVE_AGAIN)
            frame, progressive = body, marker == _PROGRESSIVE
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            exif, blocks = exif + length, blocks + 1
            if exif > parts.limits.max_exif_bytes or blocks > _MAX_EXIF_BLOCKS:
                reason = (
                    f"the JPEG has {exif:,} bytes of EXIF in {blocks:,} segments or more, the limit "
                    f"is {parts.limits.max_exif_bytes:,} in {_MAX_EXIF_BLOCKS}"
                )
                raise MetadataRejected(parts.found.name, reason, hint=_SAVE_AGAIN)
        elif not body:
            file.seek(max(length, 0), os.SEEK_CUR)
    return parts.found


def _further_scans(data: bytes, parts: _Parts) -> int:
    """Count the scans behind the first one's header as libjpeg finds them.

    Markers inside of segments and behind the end do not count.
    """
    place, scans = 0, 0
    while (match := _NEXT_IN_SCAN.search(data, place)) is not None:
        parts.count()
        marker, place = data[match.end() - 1], match.end()
        if marker == _EOI:
            break
        if marker not in _ALONE:
            scans += marker == _SOS
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return scans


def _coefficients(frame: bytes) -> float:
    """Coefficients a pixel by the sampling factors of a frame header;

    4 where they make no sense.
    """
    factors = [(byte >> 4, byte & 15) for byte in frame[7::3]]
    if not factors or any(not 1 <= side <= 4 for pair in factors for side in pair):
        return 4.0
    largest = max(h for h, _ in factors) * max(v for _, v in factors)
    return sum(h * v for h, v in factors) / largest


_STRIP_TAGS = frozenset({258, 273, 279, 320, 324, 325, 338, 339})
"""Tags of which Pillow makes a Python list; the others stay bytes until they are asked for."""
_TAG_PARTS = 10
"""A tag takes as long as ten chunks; pictures have fewer than a hundred."""
_COMPRESSION_TAG, _JPEG_IN_TIFF = 259, (6, 7)


def _walk_tiff(file: IO[bytes], parts: _Parts) -> Structure:
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = b"+" in head[2:4]
    entry, count_code, size = ("HHQ8s", "Q", 20) if big else ("HHI4s", "H", 12)
    try:
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        if offset >= parts.found.n_bytes:
            return parts.found
        file.seek(offset)
        (n_tags,) = struct.unpack(order + count_code, file.read(8 if big else 2))
        parts.count(_TAG_PARTS * n_tags)
        strips, compression = 1, 0
        for _ in range(n_tags):
            tag, _type, n_values, value = struct.unpack(order + entry, file.read(size))
            if tag in _STRIP_TAGS:
                parts.count(n_values)
                strips = n_values if tag in (273, 324) else strips
            elif tag == _COMPRESSION_TAG:
                (compression,) = struct.unpack(order + "H", value[:2])
    except struct.error:  # cut short: the plugin says so
        return parts.found
    if compression not in _JPEG_IN_TIFF or not parts.decode:
        return parts.found
    file.seek(0)
    # Strips are of one size, so the scans of all over their number are those of a pixel.
    return replace(parts.found, scans=file.read().count(b"\xff\xda") / max(strips, 1))


_JXL_CODESTREAM = b"\xff\x0a"
_JXL_SIDE_BITS = (9, 13, 18, 30)
_JXL_RATIOS = {1: (1, 1), 2: (6, 5), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def _walk_jxl(file: IO[bytes], parts: _Parts) -> Structure:
    """Read the size of a JPEG XL, bare or in boxes: its decoder takes the whole file when it is opened."""
    head = file.read(2)
    if head != _JXL_CODESTREAM:
        file.seek(0)
        for kind, length in boxes(file, parts.found.n_bytes):
            parts.count()
            if kind in (b"jxlc", b"jxlp"):
                file.seek(4 if kind == b"jxlp" else 0, os.SEEK_CUR)  # a part says its number
                head = file.read(2)
                break
            file.seek(length, os.SEEK_CUR)
    if head != _JXL_CODESTREAM:
        raise ImageRejected(parts.found.name, "the JPEG XL holds no picture")
    return replace(parts.found, canvas=_jxl_size(file.read(16)))


def boxes(file: IO[bytes], n_bytes: int) -> Iterator[tuple[bytes, int]]:
    """(type, bytes of its content) of each box of an ISO base media file, of which the content comes next.

    The caller reads or seeks past the content. ISO/IEC 14496-12, section 4.2.
    """
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        left = n_bytes - file.tell()
        if length == 1:
            wide = file.read(8)
            length = struct.unpack(">Q", wide)[0] - 8 if len(wide) == 8 else 0
            left -= 8
        length = left if length == 0 else length - 8
        if not 0 <= length <= left:
            return
        yield kind, length


def _jxl_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the size header of ISO/IEC 18181-1, section D.2; bits come from the low end."""
    bits, at = int.from_bytes(data, "little"), 0

    def take(n: int) -> int:
        nonlocal at
        value = bits >> at & (1 << n) - 1
        at += n
        return value

    eighths = bool(take(1))

    def side() -> int:
        return 8 * (take(5) + 1) if eighths else take(_JXL_SIDE_BITS[take(2)]) + 1

    height = side()
    ratio = _JXL_RATIOS.get(take(3))
    return (side() if ratio is None else height * ratio[0] // ratio[1]), height


_WALKS = {
    "JPEG XL": _walk_jxl,
    "PNG": _walk_png,
    "GIF": _walk_gif,
    "WebP": _walk_webp,
    "JPEG": _walk_jpeg,
    "TIFF": _walk_tiff,
}
