"""Group nodes, which the editor had before subgraphs: each is rewritten as a subgraph.

A group keeps its nodes by index and its links as [node, slot, node, slot, …]. What no link inside
feeds is an input of the group, what no link inside takes is an output, both in the order of the
nodes; its widgets are those of its nodes, one after another.
"""

from __future__ import annotations

from collections.abc import Mapping

Json = Mapping[str, object]
Place = tuple[int, int]

_MAX_NODES = 1_000
_PREFIXES = ("workflow>", "workflow/")


def group_nodes(workflow: Json) -> dict[str, Json]:
    """Return the groups of a graph by the class names of the nodes that stand for them."""
    extra = workflow.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    found = groups.items() if isinstance(groups, dict) else ()
    known = {str(name): group for name, group in found if isinstance(group, dict)}
    return {prefix + name: group for name, group in known.items() for prefix in _PREFIXES}


def as_subgraph(group: Json, row: Json) -> Json | None:
    """Return a group as a subgraph with the values of the node `row`;

    None where they do not fit.
    """
    nodes: list[Json] = [node for node in _list(group.get("nodes")) if isinstance(node, dict)]
    if len(nodes) != len(_list(group.get("nodes"))) or len(nodes) > _MAX_NODES:
        return None
    rows = [link for link in _list(group.get("links")) if isinstance(link, list)]
    links = [link for link in rows if _is_inside(link)]
    fed: set[Place] = {(link[2], link[3]) for link in links}
    taken: set[Place] = {(link[0], link[1]) for link in links}
    shown = [item for item in _list(group.get("external")) if isinstance(item, list)]
    taken -= {(item[0], item[1]) for item in shown if _is_place(item)}
    values = _dealt(nodes, _list(row.get("widgets_values")))
    if values is None:
        return None
    sockets = [(n, at) for n, node in enumerate(nodes) for at in _sockets(node)]
    inputs = [place for place in sockets if place not in fed]
    counts = [len(_list(node.get("outputs"))) for node in nodes]
    given = [(n, at) for n, count in enumerate(counts) for at in range(count)]
    outputs = [place for place in given if place not in taken]
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


def _dealt(nodes: list[Json], values: list[object]) -> list[list[object]] | None:
    """The group's values dealt out to its nodes; None where their numbers differ."""
    counts = [len(_list(node.get("widgets_values"))) for node in nodes]
    if sum(counts) != len(values):
        return None
    ends = [sum(counts[: n + 1]) for n in range(len(counts))]
    return [values[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _sockets(node: Json) -> list[int]:
    """The places of the inputs that are no widgets."""
    rows = _list(node.get("inputs"))
    return [at for at, row in enumerate(rows) if isinstance(row, dict) and not row.get("widget")]


def _is_inside(link: list[object]) -> bool:
    return len(link) >= 4 and all(isinstance(part, int) for part in link[:4])


def _is_place(item: list[object]) -> bool:
    return len(item) >= 2 and isinstance(item[0], int) and isinstance(item[1], int)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
