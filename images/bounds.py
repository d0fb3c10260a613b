"""Limits on the cost of one image file, checked before a decoder sees it.

Limits on bytes and pixels are not enough: 600 scans of a progressive JPEG, a million empty chunks
of a PNG or a picture of one colour make a small file expensive. `inspect` walks a file's structure,
never its pixels, in one pass that stops at the first limit; `check_work` and `check_memory` check
the result. docs/security.md gives the reasons for the figures.
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
    """Limits on one image file.

    Args:
        max_bytes: bytes of the file.
        max_pixels: pixels by its header.
        max_aspect: longer side divided by the shorter one. Encoders scale the shorter side up:
            1 x 100,000 pixels would become 224 x 22,400,000.
        max_scanned_pixels: pixels times scans of a JPEG; each scan decodes all pixels again.
        max_parts: chunks, segments, blocks or tags of the file, each of which is read in Python.
        max_exif_bytes: bytes of all EXIF blocks of a JPEG, which Pillow joins one by one.
        max_run_length_work: bytes plus pixels of a run-length BMP, which is decoded in Python.
        free_memory: bytes that a decoder may need for any file.
        memory_per_byte: bytes that it may need in addition for each byte of the file.
        max_memory: bytes that it may need in total.
    """

    max_bytes: int = 256 << 20
    max_pixels: int = 100_000_000
    max_aspect: int = 100
    max_scanned_pixels: int = 1_000_000_000
    max_parts: int = 50_000
    max_exif_bytes: int = 8 << 20
    max_run_length_work: int = 4_000_000
    free_memory: int = 256 << 20
    memory_per_byte: int = 100
    max_memory: int = 1 << 30


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class Structure:
    """A file's costs, read from its structure.

    Args:
        name: the file's name in messages.
        kind: its format, one of `imprompt.images.image_opening.FORMATS`.
        n_bytes: its size.
        canvas: (width, height) where the structure tells it (WebP, JPEG XL).
        scans: how often a JPEG codes each pixel.
        coefficients: coefficients of a JPEG per pixel.
    """

    name: str
    kind: str
    n_bytes: int
    canvas: tuple[int, int] | None = None
    scans: float = 1
    coefficients: float = 0


_SAVE_AGAIN = "Save the picture again as a plain PNG or JPEG."
_SMALLER = "Make the picture smaller."

# Bytes per pixel in Pillow's memory; other modes take four. RGBA has three more for the search for
# hidden texts.
_CORE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "RGBA": 7}
# Bytes per pixel that a decoder needs in addition: libwebp two canvases and a copy of one; libavif
# its planes and a copy; libtiff a strip, which may be the whole picture.
_DECODER_BYTES = {"WebP": 12, "AVIF": 8, "HEIC": 8, "TIFF": 4, "GIF": 1, "BMP": 1}
# Formats that are decoded when opened, before a mode is known: bytes per pixel in total.
_EAGER_BYTES = {"JPEG XL": 32}


def inspect(
    file: IO[bytes], kind: str, name: str, limits: ImageLimits, *, decode: bool
) -> Structure:
    """Walk the structure of a file, and return to its start.

    Args:
        kind: one of `imprompt.images.image_opening.FORMATS`.
        decode: pixels will be decoded, so count the scans too; a JPEG is read to its end.

    Raises:
        MetadataRejected: a JPEG's EXIF is beyond the limit.
        ImageRejected: the file has too many parts, or uses an unsupported coding.
    """
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    walk = _WALKS.get(kind)
    structure = Structure(name, kind, n_bytes)
    if walk:
        structure = walk(file, _PartCounter(structure, limits, decode=decode))
    file.seek(0)
    return structure


def check_eager(structure: Structure, limits: ImageLimits) -> None:
    """Raise `ImageRejected` where a format that is decoded when opened needs too much memory."""
    if structure.canvas is not None and structure.kind in _EAGER_BYTES:
        pixel_bytes = _EAGER_BYTES[structure.kind]
        _check_memory(structure, limits, size=structure.canvas, pixel_bytes=pixel_bytes)


def check_pixels(size: tuple[int, int], kind: str, name: str, limits: ImageLimits) -> None:
    """Raise `ImageRejected` where a picture has no pixels, too many, or too long a side."""
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


def check_work(image: ImageFile, structure: Structure, limits: ImageLimits) -> None:
    """Raise `ImageRejected` where decoding at any size would cost too much time or memory."""
    pixels = image.width * image.height
    scanned = round(pixels * structure.scans)
    if structure.scans > 1 and scanned > limits.max_scanned_pixels:
        reason = (
            f"the {structure.kind} has {structure.scans:,.0f} scans of {pixels:,} pixels "
            f"({scanned:,}), the limit is {limits.max_scanned_pixels:,}"
        )
        raise ImageRejected(structure.name, reason, hint=_SAVE_AGAIN)
    work = pixels + structure.n_bytes
    is_run_length = structure.kind == "BMP" and image.info.get("compression") in (1, 2)
    if is_run_length and work > limits.max_run_length_work:
        limit = f"the limit is {limits.max_run_length_work:,}"
        reason = f"the run-length BMP has {work:,} pixels and bytes, {limit}"
        raise ImageRejected(structure.name, reason, hint=_SAVE_AGAIN)
    check_memory(image, structure, limits, further_bytes=0)


def check_memory(
    image: ImageFile, structure: Structure, limits: ImageLimits, *, further_bytes: float
) -> None:
    """Raise `ImageRejected` where decoding needs more memory than a file of its size may use.

    `further_bytes` is what the caller holds in addition to the decoder, in bytes per pixel.
    """
    decoder: float = _CORE_BYTES.get(image.mode, 4) + _DECODER_BYTES.get(structure.kind, 0)
    if structure.kind == "JPEG":  # shrunk while decoding; only the coefficients are all kept
        decoder = 2 * structure.coefficients
    _check_memory(structure, limits, size=image.size, pixel_bytes=decoder + further_bytes)


def _check_memory(
    structure: Structure, limits: ImageLimits, *, size: tuple[int, int], pixel_bytes: float
) -> None:
    width, height = size
    needed = round(width * height * pixel_bytes)
    for_size = limits.free_memory + limits.memory_per_byte * structure.n_bytes
    allowed = min(limits.max_memory, for_size)
    if needed > allowed:
        reason = (
            f"the {structure.kind} of {structure.n_bytes:,} bytes needs {needed:,} bytes of memory "
            f"for its {width:,} x {height:,} pixels, the limit is {allowed:,}"
        )
        raise ImageRejected(structure.name, reason, hint=_SMALLER)


class _PartCounter:
    """Counts the parts of one file against their limit."""

    def __init__(self, structure: Structure, limits: ImageLimits, *, decode: bool) -> None:
        self.structure = structure
        self.limits = limits
        self.decode = decode
        self._n = 0

    def count(self, n: int = 1) -> None:
        """Count `n` further parts, or raise `ImageRejected`."""
        self._n += n
        if self._n > self.limits.max_parts:
            reason = f"the {self.structure.kind} has more than {self.limits.max_parts:,} parts"
            raise ImageRejected(self.structure.name, reason, hint=_SAVE_AGAIN)


def _walk_png(file: IO[bytes], parts: _PartCounter) -> Structure:
    file.seek(8)
    while len(header := file.read(8)) == 8:
        parts.count()
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND":
            break
        file.seek(length + 4, os.SEEK_CUR)
    return parts.structure


def _walk_gif(file: IO[bytes], parts: _PartCounter) -> Structure:
    """Walk the blocks before the first frame."""
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
    return parts.structure


def _walk_webp(file: IO[bytes], parts: _PartCounter) -> Structure:
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
    return replace(parts.structure, canvas=canvas)


_NEXT_IN_SCAN = re.compile(rb"\xff[^\xff\x00\xd0-\xd7]")
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_MAX_SEGMENTS = 1000
"""Segments before the pixels; 64 MB at most."""
_MAX_EXIF_BLOCKS = 128
"""Segments of EXIF, 8 MB at most: Pillow joins them one by one, in quadratic time."""


def _walk_jpeg(file: IO[bytes], parts: _PartCounter) -> Structure:
    """Read the segments up to the pixels, and count the scans where there may be several."""
    frame, progressive, exif_bytes, exif_blocks, segments = b"", False, 0, 0, 0
    file.seek(2)
    while (marker := _next_marker(file, parts)) != _EOI:
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(file.read(2), "big") - 2
        segments += 1
        if segments > _MAX_SEGMENTS:
            reason = f"the JPEG has more than {_MAX_SEGMENTS:,} segments before its pixels"
            raise ImageRejected(parts.structure.name, reason, hint=_SAVE_AGAIN)
        body = file.read(max(length, 0)) if marker in _FRAMES | {_SOS, _APP1} else b""
        if marker == _SOS:
            # libjpeg ends a sequential file after its first scan if that has all components.
            if not progressive and body[:1] == frame[5:6]:
                break
            scans = 1 + (_further_scans(file.read(), parts) if parts.decode else 0)
            return replace(parts.structure, scans=scans, coefficients=_coefficients(frame))
        if marker in _FRAMES:
            if marker not in _SEQUENTIAL and marker != _PROGRESSIVE:
                # Arithmetic coding takes a decision for each coefficient, even without any bytes.
                coding = f"coding {marker - 0xC0} (arithmetic, lossless or hierarchical)"
                reason = f"a JPEG of {coding} is not supported"
                raise ImageRejected(parts.structure.name, reason, hint=_SAVE_AGAIN)
            frame, progressive = body, marker == _PROGRESSIVE
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            exif_bytes, exif_blocks = exif_bytes + length, exif_blocks + 1
            _check_exif(exif_bytes, exif_blocks, parts)
        elif not body:
            file.seek(max(length, 0), os.SEEK_CUR)
    return parts.structure


def _next_marker(file: IO[bytes], parts: _PartCounter) -> int:
    """Return the next JPEG marker; EOI at the end of the file."""
    while byte := file.read(1):
        parts.count()  # junk and fill bytes are parts, too: Pillow reads them one by one
        if byte != b"\xff":
            continue
        while (byte := file.read(1)) == b"\xff":
            parts.count()
        break
    return byte[0] if byte else _EOI


def _check_exif(n_bytes: int, n_blocks: int, parts: _PartCounter) -> None:
    limit = parts.limits.max_exif_bytes
    if n_bytes > limit or n_blocks > _MAX_EXIF_BLOCKS:
        reason = (
            f"the JPEG has {n_bytes:,} bytes of EXIF in {n_blocks:,} segments or more, "
            f"the limit is {limit:,} in {_MAX_EXIF_BLOCKS}"
        )
        raise MetadataRejected(parts.structure.name, reason, hint=_SAVE_AGAIN)


def _further_scans(data: bytes, parts: _PartCounter) -> int:
    """Count the scans after the header of the first one, as libjpeg finds them.

    Markers inside segments and after the end do not count.
    """
    position, scans = 0, 0
    while (match := _NEXT_IN_SCAN.search(data, position)) is not None:
        parts.count()
        marker, position = data[match.end() - 1], match.end()
        if marker == _EOI:
            break
        if marker not in _WITHOUT_LENGTH:
            scans += marker == _SOS
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return scans


def _coefficients(frame: bytes) -> float:
    """Return the coefficients per pixel by a frame header's sampling factors; 4 if invalid."""
    factors = [(byte >> 4, byte & 15) for byte in frame[7::3]]
    if not factors or any(not 1 <= side <= 4 for pair in factors for side in pair):
        return 4.0
    largest = max(h for h, _ in factors) * max(v for _, v in factors)
    return sum(h * v for h, v in factors) / largest


_STRIP_TAGS = frozenset({258, 273, 279, 320, 324, 325, 338, 339})
"""Tags that Pillow parses into a Python list at once; others stay bytes until accessed."""
_TAG_PARTS = 10
"""One tag takes as long as ten chunks; pictures have fewer than a hundred tags."""
_COMPRESSION_TAG, _JPEG_IN_TIFF = 259, (6, 7)


def _walk_tiff(file: IO[bytes], parts: _PartCounter) -> Structure:
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = b"+" in head[2:4]
    entry, count_code, size = ("HHQ8s", "Q", 20) if big else ("HHI4s", "H", 12)
    try:
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        if offset >= parts.structure.n_bytes:
            return parts.structure
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
    except struct.error:  # truncated, which the plugin reports
        return parts.structure
    if compression not in _JPEG_IN_TIFF or not parts.decode:
        return parts.structure
    file.seek(0)
    # Strips have one size, so all scans divided by the strips are the scans of each pixel.
    return replace(parts.structure, scans=file.read().count(b"\xff\xda") / max(strips, 1))


_JXL_CODESTREAM = b"\xff\x0a"
_JXL_SIDE_BITS = (9, 13, 18, 30)
_JXL_RATIOS = {1: (1, 1), 2: (6, 5), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def _walk_jxl(file: IO[bytes], parts: _PartCounter) -> Structure:
    """Read the size of a JPEG XL, bare or in boxes, which is decoded when opened."""
    head = file.read(2)
    if head != _JXL_CODESTREAM:
        file.seek(0)
        for kind, length in boxes(file, parts.structure.n_bytes):
            parts.count()
            if kind in (b"jxlc", b"jxlp"):
                file.seek(4 if kind == b"jxlp" else 0, os.SEEK_CUR)  # a part begins with its number
                head = file.read(2)
                break
            file.seek(length, os.SEEK_CUR)
    if head != _JXL_CODESTREAM:
        raise ImageRejected(parts.structure.name, "the JPEG XL has no picture")
    return replace(parts.structure, canvas=_jxl_size(file.read(16)))


def boxes(file: IO[bytes], n_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield type and content length of each box of an ISO base media file.

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
    """Return (width, height) by the size header of ISO/IEC 18181-1, section D.2; low bits first."""
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
