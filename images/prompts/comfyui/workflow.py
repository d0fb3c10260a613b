"""The editor's graph as the API takes it: widgets as inputs, subgraphs unfolded, muted nodes gone.

The editor does the same when it queues a graph. It keeps the values of a node's widgets as a bare
list; their names come from the node's own inputs (files of 2025 and later) or from `nodes.toml`.
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
_MUTED, _BYPASSED = (2,), (4,)
_CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize"})
_EVERYWHERE = ("Anything Everywhere", "Anything Everywhere3", "Prompts Everywhere")
_VIRTUAL = frozenset(
    {*("Note", "MarkdownNote", "PrimitiveNode", "Reroute", "SetNode", "GetNode"), *_EVERYWHERE}
)
_INPUT_NODE, _OUTPUT_NODE = "-10", "-20"
# What the editor itself resolves when it queues: one of {a|b} is drawn, comments go.
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

Json = Mapping[str, object]
_Place = tuple[str, int]
"""A node's id and one of its inputs or outputs."""


@dataclass(slots=True)
class _Slot:
    """Where an output comes from: a node's id and its slot, or the value of a widget."""

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
    sources: dict[int, _Place] = field(default_factory=dict)
    """By the input's place in the list: the id and slot that it is linked to."""


def is_workflow(value: Json) -> bool:
    """Return whether an object is an editor's graph."""
    return isinstance(value.get("nodes"), list) and isinstance(value.get("links"), list)


def read_workflow(workflow: Json) -> PromptParts | None:
    """Return what the graph asks for when it is queued; None where there is no prompt in it."""
    graph = api_graph(workflow)
    found = None if graph is None else read_graph(graph)
    if found is None or found.doubt:
        return found
    is_drawn = _DYNAMIC.search(found.prompt) or _DYNAMIC.search(found.negative)
    return replace(found, doubt="the editor draws one of {…|…} by chance") if is_drawn else found


def api_graph(workflow: Json) -> dict[str, object] | None:
    """Return node id to {"class_type", "inputs"}; inner nodes of subgraphs are "outer:inner".

    Returns:
        None where it is none, or too large.
    """
    if not is_workflow(workflow):
        return None
    unfolding = _Unfolding(workflow)
    if not unfolding.take(workflow, "", 0, {}):
        return None
    return unfolding.graph()


class _Unfolding:
    def __init__(self, workflow: Json) -> None:
        self._kinds = node_kinds()
        self._nodes: dict[str, _EditorNode] = {}
        self._links = 0
        self._widgets: dict[tuple[str, str], object] = {}
        """Values that a subgraph's own widgets give to inner inputs."""
        self._passed: dict[_Place, _Place] = {}
        """What a subgraph's outputs, and its inputs seen from inside, are linked to."""
        self._set: dict[str, _Place] = {}
        definitions = workflow.get("definitions")
        rows = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        self._groups = group_nodes(workflow)
        self._unfolded: set[str] = set()
        """Ids of the group nodes that were unfolded."""
        self._subgraphs = {str(row["id"]): row for row in _rows(rows) if "id" in row}

    def take(self, graph: Json, prefix: str, depth: int, ports: dict[int, _Place]) -> bool:
        """Take in the nodes of a graph or subgraph.

        Args:
            ports: what a subgraph's inputs are linked to outside, by their places.

        Returns:
            False where there are too many.
        """
        sources: dict[_Place, _Place] = {}
        for origin, slot, target, place in _links(graph):
            self._links += 1
            source = (prefix + origin, slot)
            if origin == _INPUT_NODE:
                if slot not in ports:
                    continue
                source = ports[slot]
            sources[prefix + target, place] = source
        rows = graph.get("nodes")
        for row in rows if isinstance(rows, list) else []:
            if not isinstance(row, dict) or "id" not in row:
                continue
            key = f"{prefix}{row['id']}"
            if len(self._nodes) > MAX_NODES or self._links > MAX_LINKS:
                return False
            if not self._take_node(key, row, depth, sources):
                return False
        for (target, place), source in sources.items():
            if target == prefix + _OUTPUT_NODE:
                self._passed[prefix.rstrip(":"), place] = source
        return True

    def _take_node(self, key: str, row: Json, depth: int, sources: dict[_Place, _Place]) -> bool:
        mode = row.get("mode")
        node = _EditorNode(
            str(row.get("type", "")).strip(),
            mode if isinstance(mode, int) else 0,
            row,
            _rows(row.get("inputs")),
            _rows(row.get("outputs")),
        )
        linked = [place for place in range(len(node.inputs)) if (key, place) in sources]
        node.sources = {place: sources[key, place] for place in linked}
        self._nodes[key] = node
        inner: Json | None = self._subgraphs.get(node.kind)
        if inner is None and node.kind in self._groups:
            inner = as_subgraph(self._groups[node.kind], row)
            if inner is not None:
                self._unfolded.add(key)
        if inner is None or node.mode in (*_MUTED, *_BYPASSED):
            return True
        if depth >= _MAX_DEPTH:
            return False
        self._promote(key, node, inner)
        return self.take(inner, f"{key}:", depth + 1, self._ports(node, inner))

    @staticmethod
    def _ports(node: _EditorNode, inner: Json) -> dict[int, _Place]:
        """What each input of a subgraph is linked to, by its place in the definition."""
        places = {str(row.get("name")): place for place, row in enumerate(node.inputs)}
        ports: dict[int, _Place] = {}
        for number, row in enumerate(_rows(inner.get("inputs"))):
            place = places.get(str(row.get("name")), number)
            if place in node.sources:
                ports[number] = node.sources[place]
        return ports

    def _promote(self, key: str, node: _EditorNode, inner: Json) -> None:
        """Hand the values of a subgraph's widgets to the inner inputs that they stand for."""
        values = node.row.get("widgets_values")
        if not isinstance(values, list):
            return
        named = [row for row in node.inputs if isinstance(row.get("widget"), dict)]
        held = dict(zip((str(row.get("name")) for row in named), values, strict=False))
        names = [str(row.get("name")) for row in _rows(inner.get("inputs"))]
        for origin, slot, target, place in _links(inner):
            if origin == _INPUT_NODE and slot < len(names) and names[slot] in held:
                self._widgets[f"{key}:{target}", str(place)] = held[names[slot]]

    def graph(self) -> dict[str, object]:
        """Return what the editor would send."""
        for node in self._nodes.values():
            if node.kind == "SetNode" and 0 in node.sources:
                self._set[_first_widget(node)] = node.sources[0]
        self._broadcast()
        sent: dict[str, object] = {}
        for key, node in self._nodes.items():
            skipped = node.kind in _VIRTUAL or self._is_unfolded(key, node)
            if not skipped and node.mode not in (*_MUTED, *_BYPASSED):
                widgets = dict(self._widget_values(node))
                # Widgets of another version stand in other places: the table knows no such node.
                kind = node.kind if _are_plausible(widgets) else f"{node.kind} (of another version)"
                sent[key] = {"class_type": kind, "inputs": self._inputs(key, node, widgets)}
        return sent

    def _is_unfolded(self, key: str, node: _EditorNode) -> bool:
        return node.kind in self._subgraphs or key in self._unfolded

    def _broadcast(self) -> None:
        """Anything Everywhere links what it is given to every free input of the same type."""
        given: dict[str, list[_Place]] = {}
        sides: dict[str, _Place] = {}
        for node in self._nodes.values():
            if not node.kind.endswith(_EVERYWHERE) or node.mode in (*_MUTED, *_BYPASSED):
                continue
            for place, source in node.sources.items():
                if node.kind == "Prompts Everywhere":
                    sides.setdefault(("positive", "negative")[place != 0], source)
                else:
                    given.setdefault(self._type_of(source), []).append(source)
        if not given and not sides:
            return
        for node in self._nodes.values():
            for place, row in enumerate(node.inputs):
                if place in node.sources or row.get("widget") or node.kind.endswith(_EVERYWHERE):
                    continue
                sources = given.get(str(row.get("type")), [])
                if str(row.get("name")) in sides and row.get("type") == "CONDITIONING":
                    node.sources[place] = sides[str(row["name"])]
                elif len(sources) == 1:
                    node.sources[place] = sources[0]

    def _type_of(self, source: _Place) -> str:
        node = self._nodes.get(source[0])
        outputs = node.outputs if node is not None else []
        return str(outputs[source[1]].get("type")) if 0 <= source[1] < len(outputs) else ""

    def _inputs(self, key: str, node: _EditorNode, widgets: dict[str, object]) -> dict[str, object]:
        inputs = dict(widgets)
        for place, row in enumerate(node.inputs):
            name = str(row.get("name"))
            if (key, str(place)) in self._widgets:
                inputs[name] = self._widgets[key, str(place)]
            if place in node.sources:
                slot = self._resolve(node.sources[place])
                if slot is None:
                    inputs.pop(name, None)
                else:
                    inputs[name] = [slot.node, slot.number] if slot.node else slot.value
        return inputs

    def _widget_values(self, node: _EditorNode) -> Iterator[tuple[str, object]]:
        values = node.row.get("widgets_values")
        if isinstance(values, dict):
            yield from ((str(name), _queued(value)) for name, value in values.items())
        elif isinstance(values, list):
            names = _widget_names(node, self._kinds.get(node.kind), values)
            for name, value in zip(names, values, strict=False):
                if name != "*":
                    yield name, _queued(value)

    def _resolve(self, source: _Place) -> _Slot | None:
        """What a link leads to behind reroutes, bypassed nodes, Get and Set, and subgraphs."""
        for _ in range(MAX_NODES):
            key, slot = source
            node = self._nodes.get(key)
            if node is None or node.mode in _MUTED:
                return None
            following: _Place | None
            if node.mode in _BYPASSED:
                following = _bypassed(node, slot)
            elif self._is_unfolded(key, node):
                following = self._passed.get((key, slot))
            elif node.kind == "PrimitiveNode":
                values = node.row.get("widgets_values")
                if not isinstance(values, list) or not values:
                    return None
                return _Slot(value=_queued(values[0]))
            elif node.kind == "GetNode":
                following = self._set.get(_first_widget(node))
            elif node.kind in ("Reroute", "SetNode"):
                following = node.sources.get(0)
            else:
                return _Slot(key, slot)
            if following is None:
                return None
            source = following
        return None


def _queued(value: object) -> object:
    """A widget's value as it is sent: without comments; a list wrapped, so that it is no link."""
    if isinstance(value, list):
        return {"__value__": value}
    is_commented = isinstance(value, str) and ("/*" in value or "//" in value)
    return _COMMENTS.sub("", str(value)) if is_commented else value


def _bypassed(node: _EditorNode, slot: int) -> _Place | None:
    """A bypassed node hands on the input of the same type: that of the same place, or the first."""
    kind = node.outputs[slot].get("type") if 0 <= slot < len(node.outputs) else None
    fitting = [n for n, row in enumerate(node.inputs) if row.get("type") in (kind, "*")]
    places = [place for place in fitting if place in node.sources]
    chosen = slot if slot in places else next(iter(places), None)
    return None if chosen is None else node.sources[chosen]


def _widget_names(node: _EditorNode, kind: NodeKind | None, values: list[object]) -> list[str]:
    """The names of a node's widgets in the order of their values."""
    shown = [row for row in node.inputs if isinstance(row.get("widget"), dict)]
    own = [str(row["name"]) for row in shown if "name" in row]
    known = kind.widgets if kind is not None else []
    bare = [name for name in known if name != "*"]
    if known and len(own) < len(bare):
        # Files of 2023 have a truth value where later ones have "fixed" or "randomize".
        return known if len(values) == len(known) else _with_controls(bare, values)
    names = _with_controls(own, values)
    return names if known or len(names) == len(values) else []


def _with_controls(names: list[str], values: list[object]) -> list[str]:
    """The names with "*" where the values have what only the editor uses, behind a seed."""
    placed: list[str] = []
    for name in names:
        placed.append(name)
        while len(placed) < len(values) and _is_control(
            values[len(placed)], values[len(placed) - 1]
        ):
            placed.append("*")
    return placed


def _are_plausible(widgets: dict[str, object]) -> bool:
    """Return whether numbers stand where numbers belong, and texts where texts do."""
    for name, value in widgets.items():
        if _NUMBERS.fullmatch(name) and (isinstance(value, str) and not _DIGITS.fullmatch(value)):
            return False
        if _TEXTS.fullmatch(name) and isinstance(value, int | float):
            return False
    return True


def _is_control(value: object, before: object) -> bool:
    if isinstance(value, str) and value in _CONTROLS:
        return isinstance(before, int) and not isinstance(before, bool)
    return False


def _first_widget(node: _EditorNode) -> str:
    values = node.row.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _rows(value: object) -> list[Json]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _links(graph: Json) -> Iterable[tuple[str, int, str, int]]:
    """(origin, its slot, target, its input): a list in a graph, an object in a subgraph."""
    links = graph.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict):
            row = [
                link.get(name) for name in ("origin_id", "origin_slot", "target_id", "target_slot")
            ]
        elif isinstance(link, list) and len(link) >= 5:
            row = link[1:5]
        else:
            continue
        origin, slot, target, place = row
        if isinstance(slot, int) and isinstance(place, int):
            yield str(origin), slot, str(target), place
