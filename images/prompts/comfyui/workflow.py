"""The editor's graph converted to the API's: widgets as inputs, no subgraphs, no muted nodes.

The editor does the same when it queues a graph. It stores the values of a node's widgets as a bare
list; their names come from the node's inputs (files of 2025 and later) or from `nodes.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from imprompt.images.prompts.comfyui.graph import MAX_LINKS, MAX_NODES
from imprompt.images.prompts.comfyui.graph_prompt import read_graph
from imprompt.images.prompts.comfyui.group_nodes import as_subgraph, group_nodes
from imprompt.images.prompts.comfyui.node_table import NodeKind, node_kinds
from imprompt.images.prompts.prompt_parts import PromptParts

_MAX_DEPTH = 10
_MUTED, _BYPASSED = 2, 4
_INACTIVE = (_MUTED, _BYPASSED)
_CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize"})
_EVERYWHERE = ("Anything Everywhere", "Anything Everywhere3", "Prompts Everywhere")
_VIRTUAL = frozenset(
    {*("Note", "MarkdownNote", "PrimitiveNode", "Reroute", "SetNode", "GetNode"), *_EVERYWHERE}
)
_INPUT_NODE, _OUTPUT_NODE = "-10", "-20"
# What the editor resolves when it queues: it draws one of {a|b} and removes comments.
_DYNAMIC = re.compile(r"[{}][^{}|]*\|")
_COMMENTS = re.compile(r"/\*.{0,10000}?\*/|//[^\n]*", re.DOTALL)

_NUMBERS = re.compile(
    r"(noise_)?seed|steps|cfg|width|height|batch_size|denoise|strength|select|index|start|end"
)
_TEXTS = re.compile(
    r"text(_[a-z]|\d)?|string(_[a-z])?|(user_|positive_|negative_)?prompt|positive|negative"
    r"|delimiter|find|replace"
)
_DIGITS = re.compile(r"\s*-?[\d.]{0,30}\s*")

_LINK_FIELDS = ("origin_id", "origin_slot", "target_id", "target_slot")

Json = Mapping[str, object]
_Socket = tuple[str, int]
"""A node's id and one of its inputs or outputs."""


@dataclass(slots=True)
class _Source:
    """The source of an input: a node's id and output slot, or the value of a widget."""

    node: str = ""
    number: int = 0
    value: object = None


@dataclass(slots=True)
class _EditorNode:
    kind: str
    mode: int
    row: Json
    inputs: list[Json]
    outputs: list[Json]
    sources: dict[int, _Socket] = field(default_factory=dict)
    """The linked outputs by the input's index."""


def is_workflow(value: Json) -> bool:
    """Return whether an object is a graph of the editor."""
    return isinstance(value.get("nodes"), list) and isinstance(value.get("links"), list)


def read_workflow(workflow: Json) -> PromptParts | None:
    """Return the prompt of the graph as the editor queues it; None without one."""
    graph = api_graph(workflow)
    parts = None if graph is None else read_graph(graph)
    if parts is None or parts.doubt:
        return parts
    is_drawn = _DYNAMIC.search(parts.prompt) or _DYNAMIC.search(parts.negative)
    return replace(parts, doubt="the editor draws one of {…|…} by chance") if is_drawn else parts


def api_graph(workflow: Json) -> dict[str, object] | None:
    """Return node id to {"class_type", "inputs"}; inner nodes of subgraphs are "outer:inner".

    Returns:
        None where the object is not a graph of the editor, or too large.
    """
    if not is_workflow(workflow):
        return None
    converter = _WorkflowConverter(workflow)
    if not converter.add(workflow, "", 0, {}):
        return None
    return converter.graph()


class _WorkflowConverter:
    """Collects the nodes of a graph and its subgraphs, then resolves their links."""

    def __init__(self, workflow: Json) -> None:
        self._kinds = node_kinds()
        self._nodes: dict[str, _EditorNode] = {}
        self._n_links = 0
        self._widgets: dict[tuple[str, str], object] = {}
        """Values of inner inputs that a subgraph's widgets set."""
        self._boundary_links: dict[_Socket, _Socket] = {}
        """The inner sockets that a subgraph's outputs are linked to."""
        self._set_nodes: dict[str, _Socket] = {}
        definitions = workflow.get("definitions")
        rows = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        self._groups = group_nodes(workflow)
        self._expanded_groups: set[str] = set()
        self._subgraphs = {str(row["id"]): row for row in _rows(rows) if "id" in row}

    def add(self, graph: Json, prefix: str, depth: int, ports: dict[int, _Socket]) -> bool:
        """Add the nodes of a graph or subgraph.

        Args:
            ports: the outer sources of a subgraph's inputs, by index.

        Returns:
            False where the graph is too large.
        """
        sources: dict[_Socket, _Socket] = {}
        for origin, slot, target, index in _links_of(graph):
            self._n_links += 1
            source = (prefix + origin, slot)
            if origin == _INPUT_NODE:
                if slot not in ports:
                    continue
                source = ports[slot]
            sources[prefix + target, index] = source
        rows = graph.get("nodes")
        for row in rows if isinstance(rows, list) else []:
            if not isinstance(row, dict) or "id" not in row:
                continue
            key = f"{prefix}{row['id']}"
            if len(self._nodes) > MAX_NODES or self._n_links > MAX_LINKS:
                return False
            if not self._add_node(key, row, depth, sources):
                return False
        for (target, index), source in sources.items():
            if target == prefix + _OUTPUT_NODE:
                self._boundary_links[prefix.rstrip(":"), index] = source
        return True

    def _add_node(self, key: str, row: Json, depth: int, sources: dict[_Socket, _Socket]) -> bool:
        mode = row.get("mode")
        node = _EditorNode(
            str(row.get("type", "")).strip(),
            mode if isinstance(mode, int) else 0,
            row,
            _rows(row.get("inputs")),
            _rows(row.get("outputs")),
        )
        linked = [index for index in range(len(node.inputs)) if (key, index) in sources]
        node.sources = {index: sources[key, index] for index in linked}
        self._nodes[key] = node
        inner: Json | None = self._subgraphs.get(node.kind)
        if inner is None and node.kind in self._groups:
            inner = as_subgraph(self._groups[node.kind], row)
            if inner is not None:
                self._expanded_groups.add(key)
        if inner is None or node.mode in _INACTIVE:
            return True
        if depth >= _MAX_DEPTH:
            return False
        self._apply_promoted_widgets(key, node, inner)
        return self.add(inner, f"{key}:", depth + 1, self._ports(node, inner))

    @staticmethod
    def _ports(node: _EditorNode, inner: Json) -> dict[int, _Socket]:
        """Return the source of each linked input of a subgraph, by its index in the definition."""
        indices = {str(row.get("name")): index for index, row in enumerate(node.inputs)}
        ports: dict[int, _Socket] = {}
        for number, row in enumerate(_rows(inner.get("inputs"))):
            index = indices.get(str(row.get("name")), number)
            if index in node.sources:
                ports[number] = node.sources[index]
        return ports

    def _apply_promoted_widgets(self, key: str, node: _EditorNode, inner: Json) -> None:
        """Set the inner inputs that a subgraph's widgets represent."""
        values = node.row.get("widgets_values")
        if not isinstance(values, list):
            return
        named = [row for row in node.inputs if isinstance(row.get("widget"), dict)]
        values_by_name = dict(zip((str(row.get("name")) for row in named), values, strict=False))
        names = [str(row.get("name")) for row in _rows(inner.get("inputs"))]
        for origin, slot, target, index in _links_of(inner):
            if origin == _INPUT_NODE and slot < len(names) and names[slot] in values_by_name:
                self._widgets[f"{key}:{target}", str(index)] = values_by_name[names[slot]]

    def graph(self) -> dict[str, object]:
        """Return the graph that the editor would send."""
        for node in self._nodes.values():
            if node.kind == "SetNode" and 0 in node.sources:
                self._set_nodes[_first_widget(node)] = node.sources[0]
        self._link_everywhere()
        sent: dict[str, object] = {}
        for key, node in self._nodes.items():
            skipped = node.kind in _VIRTUAL or self._is_expanded(key, node)
            if not skipped and node.mode not in _INACTIVE:
                widgets = dict(self._widget_values(node))
                # Another version of the node has other widgets, which the table does not describe.
                kind = node.kind if _are_plausible(widgets) else f"{node.kind} (of another version)"
                sent[key] = {"class_type": kind, "inputs": self._inputs(key, node, widgets)}
        return sent

    def _is_expanded(self, key: str, node: _EditorNode) -> bool:
        return node.kind in self._subgraphs or key in self._expanded_groups

    def _link_everywhere(self) -> None:
        """Add the links of Anything Everywhere: its sources to all free inputs of the same type."""
        sources_by_type: dict[str, list[_Socket]] = {}
        sides: dict[str, _Socket] = {}
        for node in self._nodes.values():
            if not node.kind.endswith(_EVERYWHERE) or node.mode in _INACTIVE:
                continue
            for index, source in node.sources.items():
                if node.kind == "Prompts Everywhere":
                    sides.setdefault("negative" if index else "positive", source)
                else:
                    sources_by_type.setdefault(self._type_of(source), []).append(source)
        if not sources_by_type and not sides:
            return
        for node in self._nodes.values():
            for index, row in enumerate(node.inputs):
                if index in node.sources or row.get("widget") or node.kind.endswith(_EVERYWHERE):
                    continue
                sources = sources_by_type.get(str(row.get("type")), [])
                if str(row.get("name")) in sides and row.get("type") == "CONDITIONING":
                    node.sources[index] = sides[str(row["name"])]
                elif len(sources) == 1:
                    node.sources[index] = sources[0]

    def _type_of(self, source: _Socket) -> str:
        node = self._nodes.get(source[0])
        outputs = node.outputs if node is not None else []
        return str(outputs[source[1]].get("type")) if 0 <= source[1] < len(outputs) else ""

    def _inputs(self, key: str, node: _EditorNode, widgets: dict[str, object]) -> dict[str, object]:
        inputs = dict(widgets)
        for index, row in enumerate(node.inputs):
            name = str(row.get("name"))
            if (key, str(index)) in self._widgets:
                inputs[name] = self._widgets[key, str(index)]
            if index in node.sources:
                slot = self._resolve(node.sources[index])
                if slot is None:
                    inputs.pop(name, None)
                else:
                    inputs[name] = [slot.node, slot.number] if slot.node else slot.value
        return inputs

    def _widget_values(self, node: _EditorNode) -> Iterator[tuple[str, object]]:
        values = node.row.get("widgets_values")
        if isinstance(values, dict):
            yield from ((str(name), _sent_value(value)) for name, value in values.items())
        elif isinstance(values, list):
            names = _widget_names(node, self._kinds.get(node.kind), values)
            for name, value in zip(names, values, strict=False):
                if name != "*":
                    yield name, _sent_value(value)

    def _resolve(self, source: _Socket) -> _Source | None:
        """Follow a link through reroutes, bypassed nodes, Get and Set, and subgraphs."""
        for _ in range(MAX_NODES):
            key, slot = source
            node = self._nodes.get(key)
            if node is None or node.mode == _MUTED:
                return None
            next_source: _Socket | None
            if node.mode == _BYPASSED:
                next_source = _bypass_source(node, slot)
            elif self._is_expanded(key, node):
                next_source = self._boundary_links.get((key, slot))
            elif node.kind == "PrimitiveNode":
                values = node.row.get("widgets_values")
                if not isinstance(values, list) or not values:
                    return None
                return _Source(value=_sent_value(values[0]))
            elif node.kind == "GetNode":
                next_source = self._set_nodes.get(_first_widget(node))
            elif node.kind in ("Reroute", "SetNode"):
                next_source = node.sources.get(0)
            else:
                return _Source(key, slot)
            if next_source is None:
                return None
            source = next_source
        return None


def _sent_value(value: object) -> object:
    """Return a widget's value as sent: without comments; lists are wrapped to differ from links."""
    if isinstance(value, list):
        return {"__value__": value}
    is_commented = isinstance(value, str) and ("/*" in value or "//" in value)
    return _COMMENTS.sub("", str(value)) if is_commented else value


def _bypass_source(node: _EditorNode, slot: int) -> _Socket | None:
    """Return the source that a bypassed node passes on: of the same type, at the slot or first."""
    kind = node.outputs[slot].get("type") if 0 <= slot < len(node.outputs) else None
    fitting = [n for n, row in enumerate(node.inputs) if row.get("type") in (kind, "*")]
    indices = [index for index in fitting if index in node.sources]
    chosen = slot if slot in indices else next(iter(indices), None)
    return None if chosen is None else node.sources[chosen]


def _widget_names(node: _EditorNode, kind: NodeKind | None, values: list[object]) -> list[str]:
    """Return the names of a node's widgets in the order of their values."""
    shown = [row for row in node.inputs if isinstance(row.get("widget"), dict)]
    own = [str(row["name"]) for row in shown if "name" in row]
    known = kind.widgets if kind is not None else []
    bare = [name for name in known if name != "*"]
    if known and len(own) < len(bare):
        # Files of 2023 have a boolean where later ones have "fixed" or "randomize".
        return known if len(values) == len(known) else _with_controls(bare, values)
    names = _with_controls(own, values)
    return names if known or len(names) == len(values) else []


def _with_controls(names: list[str], values: list[object]) -> list[str]:
    """Return the names, with "*" for values after a seed that only the editor uses."""
    by_value: list[str] = []
    for name in names:
        by_value.append(name)
        while _is_control(*values[len(by_value) - 1 : len(by_value) + 1]):
            by_value.append("*")
    return by_value


def _are_plausible(widgets: dict[str, object]) -> bool:
    """Return whether inputs named like numbers or texts have such values."""
    for name, value in widgets.items():
        if _NUMBERS.fullmatch(name) and (isinstance(value, str) and not _DIGITS.fullmatch(value)):
            return False
        if _TEXTS.fullmatch(name) and isinstance(value, int | float):
            return False
    return True


def _is_control(seed: object = None, value: object = None) -> bool:
    is_control = isinstance(value, str) and value in _CONTROLS
    return is_control and isinstance(seed, int) and not isinstance(seed, bool)


def _first_widget(node: _EditorNode) -> str:
    values = node.row.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _rows(value: object) -> list[Json]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _links_of(graph: Json) -> Iterable[tuple[str, int, str, int]]:
    """Yield (origin, slot, target, input) of each link; subgraphs write them as objects."""
    links = graph.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict):
            row = [link.get(name) for name in _LINK_FIELDS]
        elif isinstance(link, list) and len(link) >= 5:
            row = link[1:5]
        else:
            continue
        origin, slot, target, index = row
        if isinstance(slot, int) and isinstance(index, int):
            yield str(origin), slot, str(target), index
