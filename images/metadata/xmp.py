"""The texts in an XMP packet, by the local names of their properties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_CONTAINERS = (f"{_RDF}Alt", f"{_RDF}Seq", f"{_RDF}Bag")
_MAX_PROPERTIES = 1_000
_RENAMED = {"description": "ImageDescription"}


def xmp_texts(packet: bytes) -> dict[str, str]:
    """Return the properties of a packet that hold a text; of alternatives the first.

    `defusedxml` refuses entities: a few lines of them would unpack to gigabytes.
    """
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(_without_padding(packet))
    except Exception:  # noqa: BLE001 -- no XML, or refused for its entities
        return {}
    texts: dict[str, str] = {}
    for number, (name, text) in enumerate(_properties(root)):
        if number == _MAX_PROPERTIES:
            break
        if text.strip():
            texts.setdefault(_RENAMED.get(name, name), text)
    return texts


def _without_padding(packet: bytes) -> bytes:
    """Packets are padded with blanks, and some files end them with NULs."""
    return packet.strip(b"\0 \t\r\n")


def _properties(root: Element) -> Iterator[tuple[str, str]]:
    for description in root.iter(f"{_RDF}Description"):
        for name, text in description.attrib.items():
            if not name.startswith(_RDF):
                yield _local(name), text
        for element in description:
            yield _local(element.tag), _text(element)


def _text(element: Element) -> str:
    for kind in _CONTAINERS:
        if (container := element.find(kind)) is not None:
            return next((item.text or "" for item in container), "")
    return element.text or element.attrib.get(f"{_RDF}resource", "")


def _local(name: str) -> str:
    return name.rpartition("}")[2]
