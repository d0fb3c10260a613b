"""Group nodes, which the editor had before subgraphs, converted to subgraphs.

A group stores its nodes by index and its links as [node, slot, node, slot, …]. Inputs without a
link inside are inputs of the group, outputs without one are outputs, both in the order of the
nodes; its widgets are those of its nodes, one after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

Json = Mapping[str, object]
Socket = tuple[int, int]

_MAX_NODES = 1_000
_PREFIXES = ("workflow>", "workflow/")


def group_nodes(workflow: Json) -> dict[str, Json]:
    """Return the groups of a graph by the class names of their nodes."""
    extra = workflow.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    named = groups.items() if isinstance(groups, dict) else ()
    valid = {str(name): group for name, group in named if isinstance(group, dict)}
    return {prefix + name: group for name, group in valid.items() for prefix in _PREFIXES}


def as_subgraph(group: Json, row: Json) -> Json | None:
    """Return a group as a subgraph with the values of the node `row`; None if they do not fit."""
    nodes: list[Json] = [node for node in _list(group.get("nodes")) if isinstance(node, dict)]
    if len(nodes) != len(_list(group.get("nodes"))) or len(nodes) > _MAX_NODES:
        return None
    rows = [link for link in _list(group.get("links")) if isinstance(link, list)]
    links = [link for link in rows if _is_inside(link)]
    linked_inputs: set[Socket] = {(link[2], link[3]) for link in links}
    linked_outputs: set[Socket] = {(link[0], link[1]) for link in links}
    external = [item for item in _list(group.get("external")) if isinstance(item, list)]
    linked_outputs -= {(item[0], item[1]) for item in external if _is_socket(item)}
    values = _split_values(nodes, _list(row.get("widgets_values")))
    if values is None:
        return None
    sockets = [(n, slot) for n, node in enumerate(nodes) for slot in _sockets(node)]
    inputs = [socket for socket in sockets if socket not in linked_inputs]
    counts = [len(_list(node.get("outputs"))) for node in nodes]
    sockets = [(n, slot) for n, count in enumerate(counts) for slot in range(count)]
    outputs = [socket for socket in sockets if socket not in linked_outputs]
    names = [str(item.get("name")) for item in _list(row.get("inputs")) if isinstance(item, dict)]
    return {
        "inputs": [{"name": name} for name, _ in zip(names, inputs, strict=False)],
        "nodes": [{**node, "id": n, "widgets_values": values[n]} for n, node in enumerate(nodes)],
        "links": [
            *([0, str(link[0]), *link[1:2], str(link[2]), link[3]] for link in links),
            *([0, "-10", at, str(n), slot] for at, (n, slot) in enumerate(inputs)),
            *([0, str(n), slot, "-20", at] for at, (n, slot) in enumerate(outputs)),
        ],
    }


def _split_values(nodes: list[Json], values: list[object]) -> list[list[object]] | None:
    """Return the group's values by node; None where their numbers differ."""
    counts = [len(_list(node.get("widgets_values"))) for node in nodes]
    if sum(counts) != len(values):
        return None
    remaining = iter(values)
    return [list(islice(remaining, count)) for count in counts]


def _sockets(node: Json) -> list[int]:
    """Return the slots of the inputs that are not widgets."""
    rows = _list(node.get("inputs"))
    return [at for at, row in enumerate(rows) if isinstance(row, dict) and not row.get("widget")]


def _is_inside(link: list[object]) -> bool:
    return len(link) >= 4 and all(isinstance(part, int) for part in link[:4])


def _is_socket(item: list[object]) -> bool:
    return len(item) >= 2 and isinstance(item[0], int) and isinstance(item[1], int)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
