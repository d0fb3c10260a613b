"""ComfyUI's graph as its API takes it: nodes by id, links by output slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_NODES = 5_000
MAX_LINKS = 50_000


@dataclass(frozen=True, slots=True)
class Link:
    """The output that an input is fed from: a node's id and the slot, counted from 0."""

    node: str
    slot: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node: `kind` is its class;

    `inputs` hold values and links by name, `links` links alone.
    """

    kind: str
    inputs: dict[str, object]
    links: dict[str, Link]


Graph = dict[str, Node]


def parse_graph(value: Mapping[str, object]) -> Graph | None:
    """Return the nodes of a graph; what is no node is passed over.

    Returns:
        None where there are more than `MAX_NODES` nodes or `MAX_LINKS` links, or no node at all.
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
    # Core's own "ConditioningAverage " ends in a blank.
    return Node(str(value.get("class_type", "")).strip(), inputs, links)


def _link(value: object) -> Link | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    key, slot = value
    if isinstance(key, str | int) and isinstance(slot, int) and not isinstance(slot, bool):
        return Link(str(key), slot)
    return None


def _unwrapped(value: object) -> object:
    """A list that is no link is wrapped, and some menus keep a picture beside their choice."""
    if not isinstance(value, dict):
        return value
    return value["__value__"] if "__value__" in value else value.get("content", value)
