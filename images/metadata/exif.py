"""The texts in an EXIF block by field name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprompt.images.image_opening import quiet_pillow
from imprompt.images.metadata.characters import decode_by_content, user_comment

if TYPE_CHECKING:
    from PIL.Image import Exif

_USER_COMMENT = 0x9286
_EXIF_FOLDER = 0x8769
_XMP = 0x02BC
_NAMES = {0x010E: "ImageDescription", 0x0131: "Software", 0x010F: "Make", 0x0110: "Model"}
_XP_NAMES = {0x9C9C: "XPComment", 0x9C9B: "XPTitle", 0x9C9F: "XPSubject", 0x9C9E: "XPKeywords"}
# ComfyUI's WebP and JPEG nodes write "prompt:{…}" and "workflow:{…}" into any free field.
_LABELS = frozenset({"prompt", "workflow", "parameters"})


def exif_block_texts(data: bytes) -> dict[str, str]:
    """Return the texts of a block, as in PNG's eXIf chunk; empty where it is damaged."""
    from PIL.Image import Exif

    exif = Exif()
    try:
        with quiet_pillow():
            exif.load(data)
            return exif_texts(exif)
    except Exception:  # noqa: BLE001 -- Pillow's parser raises any exception on odd bytes
        return {}


def exif_texts(exif: Exif) -> dict[str, str]:
    """Return the texts of the fields in which tools keep a prompt.

    A text that begins with "prompt:", "workflow:" or "parameters:" gets that keyword.
    """
    texts: dict[str, str] = {}
    for tag, value in exif.items():
        text = _field_text(tag, value)
        label, mark, body = text.partition(":")
        if mark and label.strip().lower() in _LABELS:
            texts.setdefault(label.strip().lower(), body)
        elif text and tag in _NAMES:
            texts.setdefault(_NAMES[tag], text)
        elif text and tag in _XP_NAMES:
            texts.setdefault(_XP_NAMES[tag], text)
    for folder in (exif.get_ifd(_EXIF_FOLDER), exif):
        comment = folder.get(_USER_COMMENT)
        if isinstance(comment, str):
            comment = comment.encode("latin-1", "replace")
        if isinstance(comment, bytes) and comment and (text := user_comment(comment)):
            texts.setdefault("UserComment", text)
    return texts


def exif_xmp(exif: Exif) -> bytes:
    """Return the XMP packet in a TIFF's fields; empty without one."""
    xmp = exif.get(_XMP, b"")
    return xmp if isinstance(xmp, bytes) else b""


def _field_text(tag: int, value: object) -> str:
    """Return a field's text, usually UTF-8 that Pillow read as Latin-1; NovelAI prefixes NULs."""
    if tag in _XP_NAMES:
        data = bytes(value) if isinstance(value, bytes | tuple) else b""
        return data.decode("utf-16-le", "replace").strip("\0\ufeff")
    if isinstance(value, str):
        return decode_by_content(value.encode("latin-1", "replace")).strip("\0")
    return decode_by_content(value) if isinstance(value, bytes) and tag in _NAMES else ""
