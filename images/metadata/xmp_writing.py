"""XMP in a copy of an image file: nothing else of the file changes, and no pixel is decoded.

XMP specification, part 1 (the packet) and part 3 (where each format keeps it).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape, quoteattr

from imprompt.images.metadata.xmp import ANSWERS, DESCRIPTION, RDF, bare, parsed

FORMATS = "PNG, JPEG and WebP"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_KEYWORD = b"XML:com.adobe.xmp\0"
_JPEG_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_MOST_IN_JPEG = 0xFFFF - 2 - len(_JPEG_HEAD)
_EXTENDED_HEADER_BYTES = 10
_WEBP_HAS_XMP, _WEBP_HAS_ALPHA = 0x04, 0x10
_END_OF_RDF = re.compile(rb"</(?:[A-Za-z][\w.-]*:)?RDF\s*>")
_MOST_UNPACKED = 8 << 20
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class CannotDescribeError(Exception):
    """The file cannot get the description; the text is the reason, such as "it is damaged"."""


def with_description(data: bytes, description: str, properties: Mapping[str, str]) -> bytes:
    """Return the bytes of an image file with a description added to its XMP.

    Args:
        data: a PNG, JPEG or WebP file.
        description: becomes `dc:description`, which photo tools show as the caption.
        properties: texts by name ("How"), in imprompt's own namespace.

    Raises:
        CannotDescribeError: the format has no XMP here, the file has a description of its own, its
            XMP or its structure is damaged, or there is no room.
    """
    added = _description(description, properties)
    if data.startswith(_PNG_HEAD):
        return _into_png(data, added)
    if data.startswith(b"\xff\xd8"):
        return _into_jpeg(data, added)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _into_webp(data, added)
    raise CannotDescribeError(f"only {FORMATS} files can be described")


def _description(description: str, properties: Mapping[str, str]) -> str:
    """Return one `rdf:Description`; {about} stands for the resource that the packet describes."""
    text = escape(_NOT_XML.sub(" ", description))
    named = "".join(
        f" imprompt:{name}={quoteattr(_NOT_XML.sub(' ', value))}"
        for name, value in properties.items()
    )
    body = (
        f'<dc:description xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Alt>'
        f'<rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></dc:description>'
    )
    head = f'<rdf:Description xmlns:rdf="{RDF}" xmlns:imprompt="{ANSWERS}"'
    return f"{head} rdf:about=ABOUT{named}>{body}</rdf:Description>"


def _packet(old: bytes | None, added: str) -> bytes:
    """Return a packet with the description: a new one, or the old one with it at its end."""
    if old is None:
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
            f'{added.replace("ABOUT", quoteattr(""), 1)}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
        ).encode()
    trimmed, root = bare(old), parsed(old)
    if root is None or not _is_utf8(trimmed):
        raise CannotDescribeError("its XMP cannot be read")
    if root.find(f".//{DESCRIPTION}") is not None or any(
        DESCRIPTION in element.attrib for element in root.iter()
    ):
        raise CannotDescribeError("its XMP has a description of its own")
    ends = [match.start() for match in _END_OF_RDF.finditer(trimmed)]
    if not ends:
        raise CannotDescribeError("its XMP cannot be read")
    described = root.find(f".//{{{RDF}}}Description")
    about = "" if described is None else described.attrib.get(f"{{{RDF}}}about", "")
    new = added.replace("ABOUT", quoteattr(about), 1).encode()
    return trimmed[: ends[-1]] + new + trimmed[ends[-1] :]


def _is_utf8(packet: bytes) -> bool:
    try:
        packet.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _into_png(data: bytes, added: str) -> bytes:
    """PNG specification, third edition, 5.3 (chunks) and 11.3.3.4 (iTXt)."""
    parts: list[bytes] = [_PNG_HEAD]
    at, old = len(_PNG_HEAD), None
    while at < len(data):
        if at + 12 > len(data):
            break  # what follows the last chunk is kept as it is
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length:
            raise CannotDescribeError("it is damaged")
        at += len(chunk)
        if kind == b"iTXt" and chunk[8:].startswith(_PNG_KEYWORD):
            old = _png_text(chunk[8:-4])
            continue
        if kind in (b"zTXt", b"tEXt") and chunk[8:].lower().startswith(b"raw profile type xmp\0"):
            raise CannotDescribeError("its XMP is in ImageMagick's form")
        parts.append(chunk)
        if kind == b"IEND":
            break
    parts.append(data[at:])
    if len(parts) < 3 or parts[1][4:8] != b"IHDR":
        raise CannotDescribeError("it is damaged")
    body = b"iTXt" + _PNG_KEYWORD + b"\0\0\0\0" + _packet(old, added)
    parts.insert(2, struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    return b"".join(parts)


def _png_text(body: bytes) -> bytes:
    packed, rest = body[len(_PNG_KEYWORD)], body[len(_PNG_KEYWORD) + 2 :]
    text = rest.split(b"\0", 2)[-1]
    if not packed:
        return text
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(text, _MOST_UNPACKED)
    except zlib.error as error:
        raise CannotDescribeError("its XMP cannot be read") from error
    if unpacker.unconsumed_tail:
        raise CannotDescribeError("its XMP is too large")
    return text


def _into_jpeg(data: bytes, added: str) -> bytes:
    """ITU-T T.81, annex B; XMP stands in an APP1 segment behind JFIF's and EXIF's."""
    kept: list[bytes] = []
    old, place = None, 0
    at = 2
    for marker, start, end in _jpeg_segments(data):
        at, segment = end, data[start:end]
        if marker == 0xE1 and segment[4:].startswith(_JPEG_HEAD):
            old = segment[4 + len(_JPEG_HEAD) :]
            continue
        kept.append(segment)
        if place == len(kept) - 1 and (
            marker == 0xE0 or (marker == 0xE1 and segment[4:].startswith(b"Exif\0"))
        ):
            place = len(kept)
    packet = _packet(old, added)
    if len(packet) > _MOST_IN_JPEG:
        raise CannotDescribeError("its XMP would be longer than a JPEG holds in one piece")
    size = struct.pack(">H", 2 + len(_JPEG_HEAD) + len(packet))
    kept.insert(place, b"\xff\xe1" + size + _JPEG_HEAD + packet)
    return data[:2] + b"".join(kept) + data[at:]


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the segments before the first scan."""
    at = 2
    while True:
        start = at
        while data[at + 1 : at + 2] == b"\xff":  # fill bytes
            at += 1
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            raise CannotDescribeError("it is damaged")
        if head[1] == 0xDA:
            return
        end = at + 2 + struct.unpack(">H", head[2:])[0]
        if end > len(data) or end < at + 4:
            raise CannotDescribeError("it is damaged")
        yield head[1], start, end
        at = end


def _into_webp(data: bytes, added: str) -> bytes:
    """RFC 9649: chunks of even length; VP8X comes first, XMP last."""
    chunks: list[tuple[bytes, bytes]] = []
    at, stop, old = 12, min(len(data), 8 + struct.unpack_from("<I", data, 4)[0]), None
    while at + 8 <= stop:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise CannotDescribeError("it is damaged")
        at += 8 + length + length % 2
        if kind == b"XMP ":
            old = body
        else:
            chunks.append((kind, body))
    if not chunks:
        raise CannotDescribeError("it is damaged")
    if chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _extended_header(*chunks[0])))
    kind, header = chunks[0]
    if len(header) != _EXTENDED_HEADER_BYTES:
        raise CannotDescribeError("it is damaged")
    chunks[0] = (kind, bytes([header[0] | _WEBP_HAS_XMP]) + header[1:])
    chunks.append((b"XMP ", _packet(old, added)))
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2)
        for kind, part in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body + data[max(at, stop) :]


def _extended_header(kind: bytes, body: bytes) -> bytes:
    """Return VP8X's body for a file of one VP8 or VP8L chunk: flags, then the canvas less one."""
    flags = 0
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        width, height = bits & 0x3FFF, bits >> 14 & 0x3FFF
        flags = _WEBP_HAS_ALPHA if bits >> 28 & 1 else 0
    elif kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
        width, height = ((value & 0x3FFF) - 1 for value in struct.unpack_from("<HH", body, 6))
    else:
        raise CannotDescribeError("it is damaged")
    if width < 0 or height < 0:
        raise CannotDescribeError("it is damaged")
    return bytes([flags, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
