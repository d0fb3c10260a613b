"""InvokeAI's graph, which is all that its workflow editor writes: nodes and edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imprompt.images.prompts.prompt_parts import PromptParts

_MAX_NODES = 5_000
_MAX_DEPTH = 50
_MAX_STEPS = 10_000
_MAX_TEXT = 1 << 20
_SIDES = {
    "positive": ("positive_conditioning", "positive_text_conditioning"),
    "negative": ("negative_conditioning", "negative_text_conditioning"),
}
_SETTINGS = {
    "seed": "seed",
    "steps": "steps",
    "num_steps": "steps",
    "cfg_scale": "cfg_scale",
    "guidance_scale": "cfg_scale",
    "scheduler": "sampler",
    "width": "width",
    "height": "height",
}
_JOINED = {
    "string_join": ("string_left", "string_right"),
    "string_join_three": ("string_left", "string_middle", "string_right"),
}

_TEXT_FIELDS = ("prompt", "style", "value", "collection", "item", "conditioning", "string")

Json = Mapping[str, object]


def read_invoke_graph(graph: Json) -> PromptParts | None:
    """Return the texts of the denoising node, or else those that the graph states as metadata."""
    nodes, edges = graph.get("nodes"), graph.get("edges")
    if not isinstance(nodes, dict) or not isinstance(edges, list) or len(nodes) > _MAX_NODES:
        return None
    texts = _GraphTexts(
        {str(key): node for key, node in nodes.items() if isinstance(node, dict)}, edges
    )
    for key in texts.denoisers():
        positive, negative = (texts.side(key, side) for side in _SIDES)
        if positive:
            return PromptParts(positive, negative, texts.settings(key), texts.doubt)
    return None


class _GraphTexts:
    """The texts that reach the nodes of a graph; `doubt` names a node that makes them uncertain."""

    def __init__(self, nodes: Mapping[str, Json], edges: list[object]) -> None:
        self._nodes = nodes
        self._sources: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._steps_left = _MAX_STEPS
        self.doubt = ""
        for edge in edges:
            ends = [_end(edge, name) for name in ("source", "destination")]
            if ends[0] is not None and ends[1] is not None:
                self._sources.setdefault(ends[1], []).append(ends[0])

    def denoisers(self) -> Iterator[str]:
        """Yield the nodes with a positive conditioning, then those that state a prompt."""
        fields = [*_SIDES["positive"], "positive_prompt"]
        for name in fields:
            for key, node in self._nodes.items():
                if (key, name) in self._sources or (name == "positive_prompt" and node.get(name)):
                    yield key

    def side(self, key: str, side: str) -> str:
        for name in (*_SIDES[side], f"{side}_prompt"):
            stripped = (text.strip() for text in self._texts(key, name, 0))
            texts = dict.fromkeys(text for text in stripped if text)
            if texts:
                return ", ".join(texts)
        return ""

    def _texts(self, key: str, name: str, depth: int) -> Iterator[str]:
        """Yield the texts that reach a field of a node."""
        self._steps_left -= 1
        if depth > _MAX_DEPTH or self._steps_left < 0:
            self.doubt = self.doubt or "the graph is too large to follow"
            return
        sources = self._sources.get((key, name), [])
        for source, _ in sources:
            yield from self._output_texts(source, depth + 1)
        value = self._nodes.get(key, {}).get(name)
        if not sources and isinstance(value, str):
            yield value

    def _output_texts(self, key: str, depth: int) -> Iterator[str]:
        """Yield the texts that a node outputs."""
        node = self._nodes.get(key, {})
        kind = str(node.get("type", ""))
        if kind in _JOINED:
            parts = ("".join(self._texts(key, name, depth)) for name in _JOINED[kind])
            text = "".join(parts)[:_MAX_TEXT]
            self._steps_left -= len(text) >> 10  # joining long texts repeatedly costs time
            yield text
        elif kind == "string_replace":
            names = ("string", "search_string", "replace_string")
            text, old, new = ("".join(self._texts(key, name, depth)) for name in names)
            if node.get("use_regex") or len(text) + text.count(old) * len(new) > _MAX_TEXT:
                self.doubt = self.doubt or f"{kind}: replaces by a pattern"
                yield text
            else:
                yield text.replace(old, new) if old else text
        else:
            if kind in ("dynamic_prompt", "random_prompt", "prompt_from_file"):
                self.doubt = self.doubt or f"{kind}: its choice was not recorded"
            for name in _TEXT_FIELDS:
                if (key, name) in self._sources or isinstance(node.get(name), str):
                    yield from self._texts(key, name, depth)

    def settings(self, key: str) -> dict[str, str]:
        settings: dict[str, str] = {}
        for node in (self._nodes[key], *self._nodes.values()):
            for name, setting in _SETTINGS.items():
                value = node.get(name)
                if isinstance(value, str | int | float) and not isinstance(value, bool):
                    settings.setdefault(setting, str(value))
        return settings


def _end(edge: object, name: str) -> tuple[str, str] | None:
    end = edge.get(name) if isinstance(edge, dict) else None
    if not isinstance(end, dict):
        return None
    return str(end.get("node_id")), str(end.get("field"))
