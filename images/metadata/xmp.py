"""The texts in an XMP packet by the local names of their properties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
ANSWERS = "urn:imprompt:answer/"
"""The namespace of what imprompt itself writes into copies: its answer, which no file said."""
_RDF = f"{{{RDF}}}"
_CONTAINERS = (f"{_RDF}Alt", f"{_RDF}Seq", f"{_RDF}Bag")
_MAX_PROPERTIES = 1_000
_RENAMED = {"description": "ImageDescription"}


def xmp_texts(packet: bytes) -> dict[str, str]:
    """Return a packet's text properties, the first of alternatives, but no answer of imprompt."""
    root = parsed(packet)
    if root is None:
        return {}
    texts: dict[str, str] = {}
    for number, (name, text) in enumerate(_properties(root)):
        if number == _MAX_PROPERTIES:
            break
        if text.strip():
            texts.setdefault(_RENAMED.get(name, name), text)
    return texts


def parsed(packet: bytes) -> Element | None:
    """Return the root of a packet, None if it is not XML or has entities.

    `defusedxml` refuses those: a few lines of them would unpack to gigabytes.
    """
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(bare(packet))
    except Exception:  # noqa: BLE001 -- as said
        return None
    return root


def bare(packet: bytes) -> bytes:
    """Return a packet without the blanks around it, which in some files are NULs."""
    return packet.strip(b"\0 \t\r\n")


def _properties(root: Element) -> Iterator[tuple[str, str]]:
    for description in root.iter(f"{_RDF}Description"):
        if any(name.startswith(f"{{{ANSWERS}}}") for name in description.attrib):
            continue
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
