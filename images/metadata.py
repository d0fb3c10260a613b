"""The texts that an image file carries beside its pixels, read without decoding one of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from core.errors import MetadataRejected
from images.opening import ImageLimits, opened_file, opened_header, quiet_pillow, source_name

if TYPE_CHECKING:
    from PIL.Image import Exif

MAX_TEXT_BYTES = 8 << 20
"""All texts of one file together; a workflow with pictures in it has a few MB."""

_MAX_CHUNKS = 100_000
_USER_COMMENT = 0x9286
_EXIF_FOLDER = 0x8769
_DESCRIPTION = 0x010E
# ComfyUI's WebP and JPEG nodes write "prompt:{…}" and "workflow:{…}" into whichever of these is free.
_LABELLED_TAGS = (_DESCRIPTION, 0x010F, 0x0110)


def read_texts(source: Path | bytes, *, limits: ImageLimits) -> dict[str, str]:
    """Texts by keyword: PNG's text chunks wherever they stand, EXIF's fields by their names, a JPEG's comment as "Comment".

    A text that is damaged or in an EXIF block that cannot be parsed is left out.

    Raises:
        MetadataRejected: all texts together have, or unpack to, more than `MAX_TEXT_BYTES`.
        ImageRejected: the file (or the bytes of one) cannot be opened as an image.
    """
    with opened_file(source, limits=limits) as (file, kind):
        if kind == "PNG":
            return _png_texts(file, source_name(source))
    with opened_header(source, limits=limits) as image, quiet_pillow():
        comment = image.info.get("comment", b"") if image.format == "JPEG" else b""
        if len(image.info.get("exif", b"")) + len(comment) > MAX_TEXT_BYTES:
            raise _too_large(source_name(source))
        texts = {"Comment": _decoded(comment)} if comment else {}
        try:
            return texts | _exif_texts(image.getexif())
        except Exception:  # noqa: BLE001 -- EXIF's parser raises anything on odd bytes; a file without readable texts has none
            return texts


def _too_large(name: str, verb: str = "have") -> MetadataRejected:
    return MetadataRejected(name, f"the texts beside the pixels {verb} more than {MAX_TEXT_BYTES:,} bytes")


def _png_texts(file: IO[bytes], name: str) -> dict[str, str]:
    """PNG specification, third edition, 11.3.3; Pillow reads chunks behind the pixels only by decoding these."""
    texts: dict[str, str] = {}
    left = MAX_TEXT_BYTES
    file.seek(8)
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            break
        length, kind = struct.unpack(">I4s", header)
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            file.seek(length + 4, 1)
            continue
        data = file.read(min(length, left + 1))
        if len(data) > left:
            raise _too_large(name)
        file.seek(4, 1)
        found = _png_exif(data) if kind == b"eXIf" else _png_text(kind, data, left, name)
        left = max(0, left - max(len(data), sum(map(len, found.values()))))
        texts.update(found)
    return texts


def _png_text(kind: bytes, data: bytes, limit: int, name: str) -> dict[str, str]:
    """One chunk as {keyword: text}; nothing where it is malformed."""
    keyword, _, body = data.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]
    elif packed:
        body = body[1:]
    if packed:
        unpacker = zlib.decompressobj()
        try:
            body = unpacker.decompress(body, limit)
        except zlib.error:
            return {}
        if unpacker.unconsumed_tail:
            raise _too_large(name, "unpack to")
    return {keyword.decode("latin-1"): _decoded(body)} if keyword else {}


def _png_exif(data: bytes) -> dict[str, str]:
    from PIL.Image import Exif

    exif = Exif()
    try:
        with quiet_pillow():
            exif.load(data)
            return _exif_texts(exif)
    except Exception:  # noqa: BLE001 -- as above
        return {}


def _exif_texts(exif: Exif) -> dict[str, str]:
    texts = {}
    for tag in _LABELLED_TAGS:
        text = _exif_text(exif.get(tag, ""))
        label, _, body = text.partition(":")
        if label.lower() in ("prompt", "workflow"):
            texts[label.lower()] = body
        elif text and tag == _DESCRIPTION:
            texts["ImageDescription"] = text
    comment = exif.get_ifd(_EXIF_FOLDER).get(_USER_COMMENT) or exif.get(_USER_COMMENT)
    if isinstance(comment, str | bytes):
        texts["UserComment"] = _exif_text(comment) if isinstance(comment, str) else _user_comment(comment)
    return texts


def _exif_text(value: object) -> str:
    """Pillow reads a field of text as Latin-1; tools write UTF-8 into it, too, and NovelAI four NULs before it."""
    return _decoded(str(value).encode("latin-1", "replace")).strip("\0")


def _user_comment(value: bytes) -> str:
    """Eight bytes name the encoding (CIPA DC-008, 4.6.6); writers disagree about the byte order of "UNICODE"."""
    label, body = value[:8], value[8:]
    if label == b"UNICODE\0":
        big_endian = body[0::2].count(0) >= body[1::2].count(0)
        return body.decode("utf-16-be" if big_endian else "utf-16-le", "replace").lstrip("\ufeff")
    return _decoded(body if label in (b"ASCII\0\0\0", bytes(8)) else value)


def _decoded(data: bytes) -> str:
    """UTF-8 where it is valid (tools write it into tEXt, too), else Latin-1 as PNG has it."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
