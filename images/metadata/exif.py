"""The texts in an EXIF block, by the names of their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprompt.images.image_opening import quiet_pillow
from imprompt.images.metadata.characters import decoded_by_look, user_comment

if TYPE_CHECKING:
    from PIL.Image import Exif

_USER_COMMENT = 0x9286
_EXIF_FOLDER = 0x8769
_XMP, _IPTC = 0x02BC, 0x83BB
_NAMES = {0x010E: "ImageDescription", 0x0131: "Software", 0x010F: "Make", 0x0110: "Model"}
_XP_NAMES = {0x9C9C: "XPComment", 0x9C9B: "XPTitle", 0x9C9F: "XPSubject", 0x9C9E: "XPKeywords"}
# ComfyUI's WebP and JPEG nodes write "prompt:{…}" and "workflow:{…}" into whichever field is free.
_LABELS = frozenset({"prompt", "workflow", "parameters"})


def exif_block_texts(data: bytes) -> dict[str, str]:
    """Return the texts of a block as it stands in PNG's eXIf; nothing where it is damaged."""
    from PIL.Image import Exif

    exif = Exif()
    try:
        with quiet_pillow():
            exif.load(data)
            return exif_texts(exif)
    except Exception:  # noqa: BLE001 -- EXIF's parser raises anything on odd bytes
        return {}


def exif_texts(exif: Exif) -> dict[str, str]:
    """Return the texts of the fields in which tools keep a prompt.

    A text that begins with "prompt:", "workflow:" or "parameters:" goes under that name.
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


def exif_blocks(exif: Exif) -> tuple[bytes, bytes]:
    """Return the XMP and the IPTC block that a TIFF keeps among its fields, empty where none is."""
    xmp, iptc = exif.get(_XMP, b""), exif.get(_IPTC, b"")
    return (xmp if isinstance(xmp, bytes) else b""), (iptc if isinstance(iptc, bytes) else b"")


def _field_text(tag: int, value: object) -> str:
    """Pillow reads text as Latin-1; tools write UTF-8 into it, and NovelAI four NULs before it."""
    if tag in _XP_NAMES:
        data = bytes(value) if isinstance(value, bytes | tuple) else b""
        return data.decode("utf-16-le", "replace").strip("\0\ufeff")
    if isinstance(value, str):
        return decoded_by_look(value.encode("latin-1", "replace")).strip("\0")
    return decoded_by_look(value) if isinstance(value, bytes) and tag in _NAMES else ""
