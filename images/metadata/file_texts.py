"""The texts in an image file, read without decoding a pixel."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from imprompt.images.bounds import boxes
from imprompt.images.image_opening import ImageLimits, opened_file, opened_header, quiet_pillow
from imprompt.images.metadata.characters import decode_by_content, decode_text
from imprompt.images.metadata.exif import exif_block_texts, exif_texts, exif_xmp
from imprompt.images.metadata.gif import gif_comments
from imprompt.images.metadata.xmp import xmp_texts

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_TEXT_BYTES = 8 << 20
"""Limit of one text; a workflow with pictures in it has a few MB."""

_MAX_TOTAL_BYTES = 4 * MAX_TEXT_BYTES
# Unpacking texts that are then discarded costs time, too: a file may be full of them.
_MAX_UNPACKED_BYTES = 8 * MAX_TEXT_BYTES
_MAX_CHUNKS = 100_000
_MAX_TEXTS = 1_000
# ComfyUI writes "comf" into animated PNGs, in which tEXt must not follow the pixels.
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"comf")
_XMP_KEYWORD = "XML:com.adobe.xmp"
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"Exif\0\0")
_RAW_PROFILE = re.compile(r"raw profile type (\w{1,20})", re.IGNORECASE)
_IPTC_NAMES = {(2, 120): "Caption", (2, 40): "Instructions", (2, 5): "Title"}
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENDED_HEAD = len(_EXTENDED_XMP) + 40


@dataclass(slots=True)
class FileTexts:
    """Texts by keyword; `left_out` says why texts are missing, and is empty where none is."""

    texts: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    _bytes_left: int = _MAX_TOTAL_BYTES
    _unpacked: int = 0

    def add(self, texts: dict[str, str]) -> None:
        """Add texts; a keyword that another text already has gets a number."""
        for keyword, text in texts.items():
            if len(text) > self._bytes_left or len(self.texts) >= _MAX_TEXTS:
                self.left_out = f"the texts in it have more than {_MAX_TOTAL_BYTES:,} bytes"
                continue
            name, number = keyword, 2
            while name in self.texts and self.texts[name] != text:
                name, number = f"{keyword} {number}", number + 1
            if name not in self.texts:
                self._bytes_left -= len(text)
                self.texts[name] = text

    def leave_out(self, verb: str = "has") -> None:
        """Record that a text is too large."""
        self.left_out = f"a text in it {verb} more than {MAX_TEXT_BYTES:,} bytes"

    def unpack(self, data: bytes) -> bytes:
        """Return the unpacked bytes; empty where damaged, too large, or too many in total."""
        if self._unpacked > _MAX_UNPACKED_BYTES:
            self.leave_out("unpacks to")
            return b""
        unpacker = zlib.decompressobj()
        try:
            body = unpacker.decompress(data, MAX_TEXT_BYTES)
        except zlib.error:
            return b""
        self._unpacked += len(body)
        if unpacker.unconsumed_tail:
            self.leave_out("unpacks to")
            return b""
        return body


def read_texts(source: Path | bytes, *, limits: ImageLimits) -> FileTexts:
    """Return the texts in a file's text chunks, comments, EXIF, XMP and IPTC.

    Keywords are those of PNG, the fields of EXIF, XMP and IPTC, and "Comment" for comments. Texts
    that are damaged or larger than `MAX_TEXT_BYTES` are left out.

    Raises:
        ImageRejected: the file (or the bytes of one) cannot be opened as an image.
    """
    texts = FileTexts()
    with opened_file(source, limits=limits) as (file, kind):
        if kind == "PNG":
            _read_png(file, texts)
            return texts
        if kind == "GIF":
            comments, xmp = gif_comments(file, limit=MAX_TEXT_BYTES)
            for comment in comments:
                texts.add({"Comment": decode_by_content(comment)})
            _add_xmp(texts, xmp)
            return texts
        if kind == "JPEG XL":
            _read_jxl(file, texts)
            return texts
    with opened_header(source, limits=limits) as image, quiet_pillow():
        _read_header(image, texts)
    return texts


def _read_header(image: ImageFile, texts: FileTexts) -> None:
    """Add what Pillow has read of the header: EXIF, XMP, IPTC, and a JPEG's comments."""
    segments = list(_segments(image))
    for kind, data in segments:
        if kind == "COM":
            texts.add({"Comment": decode_by_content(data)})
    if len(image.info.get("exif") or b"") > MAX_TEXT_BYTES:
        texts.leave_out()
    else:
        with suppress(Exception):  # Pillow's parser raises any exception on odd bytes
            texts.add(exif_texts(image.getexif()))
    for packet in _xmp_packets(image, segments):
        _add_xmp(texts, packet)
    with suppress(Exception):  # as above
        texts.add(_iptc_texts(image))


def _segments(image: ImageFile) -> Iterator[tuple[str, bytes]]:
    for kind, data in getattr(image, "applist", ())[:_MAX_CHUNKS]:
        if isinstance(data, bytes):
            yield str(kind), data


def _xmp_packets(image: ImageFile, segments: list[tuple[str, bytes]]) -> Iterator[bytes]:
    """Yield the packet, and the extension of one beyond 64 kB, joined by its parts' offsets."""
    packet = image.info.get("xmp", b"")
    if isinstance(packet, bytes) and packet:
        yield packet
    elif image.format == "TIFF":
        with suppress(Exception):
            yield exif_xmp(image.getexif())
    parts: dict[int, bytes] = {}  # by offset
    for _, data in segments:
        if data.startswith(_EXTENDED_XMP) and len(data) > _EXTENDED_HEAD:
            (offset,) = struct.unpack(">I", data[_EXTENDED_HEAD - 4 : _EXTENDED_HEAD])
            parts[offset] = data[_EXTENDED_HEAD:]
    if parts:
        yield b"".join(parts[offset] for offset in sorted(parts))


def _add_xmp(texts: FileTexts, packet: bytes) -> None:
    if len(packet) > MAX_TEXT_BYTES:
        texts.leave_out()
    elif packet:
        texts.add(xmp_texts(packet))


def _iptc_texts(image: ImageFile) -> dict[str, str]:
    from PIL.IptcImagePlugin import getiptcinfo

    fields: dict[tuple[int, int], Any] = getiptcinfo(image) or {}
    texts: dict[str, str] = {}
    for number, name in _IPTC_NAMES.items():
        value = fields.get(number, b"")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, bytes) and value:
            texts[name] = decode_by_content(value)
    return texts


def _read_jxl(file: IO[bytes], texts: FileTexts) -> None:
    """Add the texts of the EXIF and XMP boxes, which are not packed; ISO/IEC 18181-2."""
    size = file.seek(0, 2)
    file.seek(0)
    for number, (kind, length) in enumerate(boxes(file, size)):
        if number > _MAX_CHUNKS:
            break
        if kind not in (b"Exif", b"xml "):
            file.seek(length, 1)
        elif length > MAX_TEXT_BYTES:
            texts.leave_out()
            file.seek(length, 1)
        elif kind == b"Exif":
            data = file.read(length)
            # Some writers omit the four bytes with the offset of the TIFF header.
            start = 0 if data.startswith(_TIFF_HEADS) else 4 + int.from_bytes(data[:4], "big")
            texts.add(exif_block_texts(data[start:]))
        else:
            _add_xmp(texts, file.read(length))


def _read_png(file: IO[bytes], texts: FileTexts) -> None:
    """Add the text chunks, also those after the pixels, for which Pillow would decode them.

    PNG specification, third edition, 11.3.3.
    """
    size = file.seek(0, 2)
    file.seek(8)
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            break
        length, kind = struct.unpack(">I4s", header)
        if length > size:
            break
        if kind not in _TEXT_CHUNKS and kind != b"eXIf":
            file.seek(length + 4, 1)
        elif length > MAX_TEXT_BYTES:
            texts.leave_out()
            file.seek(length + 4, 1)
        else:
            data = file.read(length)
            file.seek(4, 1)
            texts.add(exif_block_texts(data)) if kind == b"eXIf" else _read_text(kind, data, texts)


def _read_text(kind: bytes, data: bytes, texts: FileTexts) -> None:
    """Add the text of one chunk, unless it is malformed."""
    keyword, _, body = data.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]
    elif packed:
        body = body[1:]
    if packed:
        body = texts.unpack(body)
    name = keyword.decode("latin-1").strip()
    if name == _XMP_KEYWORD:
        _add_xmp(texts, body)
    elif (profile := _RAW_PROFILE.fullmatch(name)) is not None:
        _read_profile(profile[1].lower(), body, texts)
    elif name and body:
        texts.add({name: decode_text(body)})


def _read_profile(kind: str, body: bytes, texts: FileTexts) -> None:
    """Add the texts of a foreign block in ImageMagick's form: a line with its name, length, hex."""
    _, _, rest = body.lstrip().partition(b"\n")
    try:
        data = bytes.fromhex("".join(rest.decode("ascii").split()[1:]))
    except ValueError:
        return
    if data.startswith(_XMP_SEGMENT) or kind == "xmp":
        _add_xmp(texts, data.removeprefix(_XMP_SEGMENT))
    elif kind in ("exif", "app1"):
        texts.add(exif_block_texts(data))
    elif kind in ("iptc", "8bim"):
        with suppress(Exception):  # the parser raises any exception on odd bytes
            texts.add(_iptc_block_texts(data))


def _iptc_block_texts(data: bytes) -> dict[str, str]:
    """Return the texts of IPTC records in ImageMagick's profile, bare or after Photoshop's head."""
    at = data.find(b"\x1c\x02")
    texts: dict[str, str] = {}
    while 0 <= at <= len(data) - 5 and data[at] == 0x1C and len(texts) < _MAX_TEXTS:
        record, number, length = struct.unpack(">BBH", data[at + 1 : at + 5])
        if name := _IPTC_NAMES.get((record, number)):
            texts.setdefault(name, decode_by_content(data[at + 5 : at + 5 + length]))
        at += 5 + length
    return texts
