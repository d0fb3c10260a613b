"""Text from bytes whose encoding is misnamed or not named."""

from __future__ import annotations

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# One NUL in ten bytes: UTF-16 of any text with Latin letters, spaces or digits has that many.
_NUL_SHARE = 10
_SAMPLE_BYTES = 4096
_LABELS = (b"UNICODE", b"ASCII", b"JIS")


def decode_text(data: bytes) -> str:
    """Return the text as UTF-8 where that is valid (tools write it everywhere), else as Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decode_by_content(data: bytes) -> str:
    """Return the text by its byte-order mark, by where NULs are, or as `decode_text` does."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace").strip("\0")
    head = data[:_SAMPLE_BYTES].rstrip(b"\0")
    if head.count(0) * _NUL_SHARE > len(head):
        return _utf_16(data)
    return decode_text(data.strip(b"\0"))


def user_comment(value: bytes) -> str:
    """Return EXIF's user comment, whose first eight bytes name the encoding (CIPA DC-008, 4.6.6).

    In real files the label is in any case, padded with spaces, or missing; "UNICODE" is UTF-16 of
    either byte order, or UTF-8 since Exif 3.0; "JIS" is often UTF-8.
    """
    label, body = value[:8], value[8:]
    name = label.rstrip(b"\0")
    if label != name or name.isupper():  # only upper-case labels are padded with spaces
        name = name.strip().upper()
    if body[:8] == label and name in _LABELS:  # a tool and its library both wrote one
        body = body[8:]
    if name == b"UNICODE":
        return _unicode(body)
    if name == b"JIS":
        return _jis(body)
    if name == b"ASCII" or label == bytes(8):
        return decode_by_content(body)
    return decode_by_content(value)


def _unicode(body: bytes) -> str:
    if body.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return decode_by_content(body)
    text = body.rstrip(b"\0")
    if 0 not in text[:_SAMPLE_BYTES]:
        try:
            return text.decode("utf-8")  # UTF-16 without any NUL is hardly ever valid UTF-8
        except UnicodeDecodeError:
            pass
    return _utf_16(body)


def _jis(body: bytes) -> str:
    text = body.rstrip(b"\0")
    for encoding in ("iso2022_jp",) if b"\x1b" in text else ("utf-8", "shift_jis"):
        try:
            return text.decode(encoding)
        except UnicodeDecodeError:
            continue
    return decode_by_content(body)


def _utf_16(data: bytes) -> str:
    """Return UTF-16 text in the byte order in which more characters share their upper byte."""
    head = data[:_SAMPLE_BYTES]
    even, odd = head[0::2], head[1::2]
    big_endian = even.count(0) > odd.count(0)
    if even.count(0) == odd.count(0):
        big_endian = len(set(even)) <= len(set(odd))
    encoding = "utf-16-be" if big_endian else "utf-16-le"
    text = data[: len(data) - len(data) % 2].decode(encoding, "replace")
    return text.lstrip("\ufeff").rstrip("\0")
