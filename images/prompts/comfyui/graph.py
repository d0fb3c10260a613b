"""ComfyUI's graph in the form of its API: nodes by id, links by output slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_NODES = 5_000
MAX_LINKS = 50_000


@dataclass(frozen=True, slots=True)
class Link:
    """The output that an input is linked to: a node's id and the slot, from 0."""

    node: str
    slot: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node of class `kind`; `inputs` maps names to values and links, `links` to links only."""

    kind: str
    inputs: dict[str, object]
    links: dict[str, Link]


Graph = dict[str, Node]


def parse_graph(value: Mapping[str, object]) -> Graph | None:
    """Return the nodes of a graph; other values are ignored.

    Returns:
        None where there are more than `MAX_NODES` nodes or `MAX_LINKS` links, or no nodes.
    """
    if len(value) > MAX_NODES:
        return None
    nodes = {str(key): node for key, item in value.items() if (node := _node(item)) is not None}
    if not nodes or sum(len(node.links) for node in nodes.values()) > MAX_LINKS:
        return None
    return nodes


def is_graph(value: Mapping[str, object]) -> bool:
    """Return whether an object has at least one node."""
    return any(_node(item) is not None for item in value.values())


def _node(value: object) -> Node | None:
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), dict):
        return None
    inputs: dict[str, object] = {}
    links: dict[str, Link] = {}
    for key, item in value["inputs"].items():
        link = _link(item)
        if link is not None:
            links[str(key)] = link
        inputs[str(key)] = link if link is not None else _unwrapped(item)
    # The name of ComfyUI's "ConditioningAverage " ends in a space.
    return Node(str(value.get("class_type", "")).strip(), inputs, links)


def _link(value: object) -> Link | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    key, slot = value
    if isinstance(key, str | int) and isinstance(slot, int) and not isinstance(slot, bool):
        return Link(str(key), slot)
    return None


def _unwrapped(value: object) -> object:
    """Return the value of a wrapped list, and the choice of a menu that also has a picture."""
    if not isinstance(value, dict):
        return value
    return value["__value__"] if "__value__" in value else value.get("content", value)
