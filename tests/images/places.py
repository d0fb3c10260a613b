"""Files that carry a text in one of the places that tools and other programs write it to."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

from tests.images.builders import png, png_chunk

_PIXELS = np.zeros((8, 8, 3), np.uint8)
_RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
_EXIF_FOLDER, _COMMENT = 0x8769, 0x9286

Place = Callable[[str], bytes]


def png_with(*chunks: bytes, behind: bytes = b"") -> bytes:
    return png(_PIXELS, colour=2, before=b"".join(chunks), after=behind)


def saved(kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(_PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def packet(name: str, text: str, *, form: str = "alt") -> bytes:
    """Return an XMP packet with one property: alternatives, an element's text, or an attribute."""
    space = 'xmlns:own="https://example.org/own/1.0/"'
    body, attribute = "", ""
    if form == "alt":
        item = f'<rdf:li xml:lang="x-default">{escape(text)}</rdf:li>'
        body = f"<own:{name}><rdf:Alt>{item}</rdf:Alt></own:{name}>"
    elif form == "element":
        body = f"<own:{name}>{escape(text)}</own:{name}>"
    else:
        attribute = f" own:{name}={quoteattr(text, {chr(10): '&#10;'})}"
    description = f'<rdf:Description rdf:about="" {space}{attribute}>{body}</rdf:Description>'
    meta = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {_RDF}>{description}</rdf:RDF></x:xmpmeta>'
    )
    begin = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{begin}{meta}<?xpacket end="w"?>'.encode()


def jpeg_segments(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with segments behind its start."""
    plain = saved("JPEG")
    return (
        plain[:2]
        + b"".join(struct.pack(">BBH", 0xFF, mark, len(data) + 2) + data for mark, data in segments)
        + plain[2:]
    )


XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"


def xmp_jpeg(data: bytes) -> bytes:
    return jpeg_segments((0xE1, XMP_SEGMENT + data))


def extended_xmp_jpeg(text: str) -> bytes:
    """A packet beyond one segment, in parts that do not stand in their order."""
    whole, guid = packet("prompt", text + " " * 70_000, form="element"), b"0" * 32
    parts = [(at, whole[at : at + 40_000]) for at in range(0, len(whole), 40_000)]
    segments = [
        (
            0xE1,
            b"http://ns.adobe.com/xmp/extension/\0"
            + guid
            + struct.pack(">II", len(whole), at)
            + part,
        )
        for at, part in reversed(parts)
    ]
    return jpeg_segments(
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet("HasExtendedXMP", "0" * 32)), *segments
    )


def iptc(text: str) -> bytes:
    data = text.encode()
    return b"\x1c\x02\x78" + struct.pack(">H", len(data)) + data


def photoshop(text: str) -> bytes:
    """IPTC's caption in Photoshop's block, as APP13 has it."""
    data = iptc(text)
    return (
        b"Photoshop 3.0\x008BIM\x04\x04\0\0"
        + struct.pack(">I", len(data))
        + data
        + b"\0" * (len(data) % 2)
    )


def raw_profile(kind: str, data: bytes, *, named: str = "") -> bytes:
    """As ImageMagick wraps a block of another format."""
    lines = [data.hex()[at : at + 72] for at in range(0, 2 * len(data), 72)]
    body = f"\n{named or kind}\n{len(data):8}\n".encode() + "\n".join(lines).encode() + b"\n"
    return png_chunk(b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(body))


def exif_of(fill: Callable[[Image.Exif], None]) -> bytes:
    exif = Image.Exif()
    fill(exif)
    return exif.tobytes()


def comment_exif(value: bytes) -> bytes:
    def fill(exif: Image.Exif) -> None:
        exif.get_ifd(_EXIF_FOLDER)[_COMMENT] = value

    return exif_of(fill)


def field_exif(tag: int, value: object) -> bytes:
    def fill(exif: Image.Exif) -> None:
        exif[tag] = value

    return exif_of(fill)


def unicode_comment(text: str) -> bytes:
    return comment_exif(b"UNICODE\0" + text.encode("utf-16-be"))


def gif(text: str, *, behind: bool = False) -> bytes:
    """The comment before the first frame, or behind two of them."""
    frames = [
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).convert("P") for shade in (0, 200)
    ]
    buffer = BytesIO()
    frames[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=100,
        **({} if behind else {"comment": text.encode()}),
    )
    data = buffer.getvalue()
    if not behind:
        return data
    parts = [text.encode()[at : at + 255] for at in range(0, len(text.encode()), 255)]
    block = b"\x21\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    return data[:-1] + block + b"\x3b"


def gif_xmp(data: bytes) -> bytes:
    plain = saved("GIF")
    trailer = bytes([1]) + bytes(range(255, -1, -1)) + b"\0"
    return plain[:-1] + b"\x21\xff\x0bXMP DataXMP" + data + trailer + b"\x3b"


def text_chunk(keyword: str, text: str, kind: str = "iTXt") -> bytes:
    name, data = keyword.encode("latin-1"), text.encode()
    if kind == "zTXt":
        return png_chunk(b"zTXt", name + b"\0\0" + zlib.compress(data))
    return (
        png_chunk(b"iTXt", name + b"\0\0\0\0\0" + data)
        if kind == "iTXt"
        else png_chunk(kind.encode(), name + b"\0" + data)
    )


def _under(keyword: str) -> Place:
    return lambda text: png_with(text_chunk(keyword, text))


def _comment(label: bytes, encoding: str) -> Place:
    return lambda text: label + text.encode(encoding)


ANY_TEXT: dict[str, Place] = {
    "JPEG comment": lambda text: jpeg_segments((0xFE, text.encode())),
    "JPEG, the second of two comments": lambda text: jpeg_segments(
        (0xFE, b"made by hand"), (0xFE, text.encode())
    ),
    "GIF comment": gif,
    "GIF comment behind the frames": lambda text: gif(text, behind=True),
    "XMP user comment in PNG": lambda text: png_with(
        text_chunk("XML:com.adobe.xmp", packet("UserComment", text).decode())
    ),
    "XMP user comment in JPEG": lambda text: xmp_jpeg(packet("UserComment", text)),
    "XMP user comment in WebP": lambda text: saved("WEBP", xmp=packet("UserComment", text)),
    "XMP user comment in AVIF": lambda text: saved("AVIF", xmp=packet("UserComment", text)),
    "XMP user comment in GIF": lambda text: gif_xmp(packet("UserComment", text)),
    "XMP user comment in TIFF": lambda text: saved(
        "TIFF", tiffinfo={700: packet("UserComment", text)}
    ),
    "XMP description": lambda text: xmp_jpeg(packet("description", text)),
    "XMP attribute": lambda text: xmp_jpeg(packet("UserComment", text, form="attribute")),
    "XMP element": lambda text: xmp_jpeg(packet("parameters", text, form="element")),
    "IPTC caption": lambda text: jpeg_segments((0xED, photoshop(text))),
    "raw profile of EXIF": lambda text: png_with(raw_profile("exif", unicode_comment(text))),
    "raw profile of APP1": lambda text: png_with(raw_profile("APP1", unicode_comment(text))),
    "raw profile of APP1, generic": lambda text: png_with(
        raw_profile("APP1", unicode_comment(text), named="generic profile")
    ),
    "raw profile of XMP in APP1": lambda text: png_with(
        raw_profile("APP1", XMP_SEGMENT + packet("UserComment", text), named="generic profile")
    ),
    "raw profile of XMP": lambda text: png_with(raw_profile("xmp", packet("UserComment", text))),
    "raw profile of IPTC": lambda text: png_with(raw_profile("iptc", photoshop(text))),
    "EXIF description": lambda text: saved("JPEG", exif=field_exif(0x010E, text)),
    "Windows' comment": lambda text: saved(
        "JPEG", exif=field_exif(0x9C9C, text.encode("utf-16-le") + b"\0\0")
    ),
    "Windows' title": lambda text: saved(
        "WEBP", exif=field_exif(0x9C9B, text.encode("utf-16-le") + b"\0\0")
    ),
    "PNG's EXIF": lambda text: png_with(
        png_chunk(b"eXIf", unicode_comment(text).removeprefix(b"Exif\0\0"))
    ),
    "TIFF description": lambda text: saved("TIFF", tiffinfo={270: text}),
    **{
        f"PNG text {name}": _under(name)
        for name in ("Parameters", "PARAMETERS", "Comment", "Description", "comment")
    },
    **{
        f"PNG text {name}": _under(name)
        for name in ("exif:UserComment", "tiff:ImageDescription", "dc:description")
    },
    "PNG text of a user comment's bytes": lambda text: png_with(
        text_chunk("exif:UserComment", ", ".join(map(str, b"ASCII\0\0\0" + text.encode())))
    ),
    "PNG text behind the pixels": lambda text: png_with(behind=text_chunk("parameters", text)),
    "packed PNG text": lambda text: png_with(text_chunk("parameters", text, "zTXt")),
}
"""Where AUTOMATIC1111's text and JSON objects are read alike."""

UTF_16 = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
COMMENTS: dict[str, Place] = {
    "Exif 3.0, UTF-8 under UNICODE": lambda text: b"UNICODE\0" + text.encode(),
    "Exif 3.0, odd length": lambda text: (
        b"UNICODE\0" + text.encode() + b"\0" * (1 + len(text.encode()) % 2)
    ),
    "mixed-case label": lambda text: b"Unicode\0" + text.encode("utf-16-le"),
    "lower-case label": lambda text: b"unicode\0" + text.encode("utf-16-be"),
    "lower-case ASCII": lambda text: b"ascii\0\0\0" + text.encode(),
    "blanks for NULs": lambda text: b"UNICODE " + text.encode("utf-16-be"),
    "blanks for NULs, ASCII": lambda text: b"ASCII   " + text.encode(),
    "JIS with UTF-8": lambda text: b"JIS\0\0\0\0\0" + text.encode(),
    "the label twice": lambda text: b"UNICODE\0" * 2 + text.encode("utf-16-be"),
    "the label twice, ASCII": lambda text: b"ASCII\0\0\0" * 2 + text.encode(),
    "NULs behind": lambda text: b"UNICODE\0" + text.encode("utf-16-be") + bytes(6),
    "no label, UTF-8": lambda text: text.encode(),
    **{
        f"byte-order mark, {name}": _comment(b"UNICODE\0" + mark, name)
        for name, mark in UTF_16.items()
    },
    **{f"NULs for a label, {name}": _comment(bytes(8), name) for name in UTF_16},
    **{f"no label, {name}, mark": _comment(mark, name) for name, mark in UTF_16.items()},
    **{f"no label, {name}": _comment(b"", name) for name in UTF_16},
}
"""EXIF user comments as files have them."""


def twice(value: object) -> str:
    return json.dumps(json.dumps(value))
