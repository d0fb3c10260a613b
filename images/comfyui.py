"""The prompt in a ComfyUI graph: from the saved picture back to the sampler that began it, and on to the texts of that sampler.

sd-parsers is not used here: it needs the editor's workflow beside the graph, knows only samplers that hold their steps and
scale themselves (not the guider and noise nodes of Flux and later models), and follows every sampler on its own.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

MAX_NODES = 5_000
MAX_LINKS = 50_000
_MAX_DEPTH = 100
_MAX_SAMPLERS = 50

_PROMPT_INPUTS = {
    "positive": ("positive", "conditioning", "guider", "text_embeds", "pipe", "basic_pipe"),
    "negative": ("negative", "guider", "text_embeds", "pipe", "basic_pipe"),
}
_TO_TEXT = frozenset(key for keys in _PROMPT_INPUTS.values() for key in keys)
_SAMPLER_INPUTS = frozenset({"seed", "noise_seed", "noise", "steps", "sampler", "sampler_name", "sigmas"})
# Links that lead to weights or pixels, never to a text.
_WITHOUT_TEXT = re.compile(r"(clip|model|vae|image|latent|sample|pixel|mask|control|noise|sigma|lora|ipadapter|style|width|height)")
_TEXT_INPUT = re.compile(
    r"((pre|post|prepend|append)_)?(text|string|prompt|value|t5xxl|clip_[lg]|llama|populated|positive|negative)(_?\w{1,10})?"
)
# What a language or vision model says is not in the file; the text that such a node holds is its instruction.
_MADE_TEXT = re.compile(r"TextGenerate|LLM|Ollama|ChatGPT|Florence2Run|WD14Tagger|Interrogat|Caption", re.IGNORECASE)
_SHOWN_TEXT = "text_0"
"""Where a node that shows a text keeps it, perhaps from an earlier run: second to the text that is linked to it."""
_SETTINGS = {
    "seed": "seed",
    "noise_seed": "seed",
    "steps": "steps",
    "cfg": "cfg_scale",
    "sampler_name": "sampler",
    "scheduler": "scheduler",
    "denoise": "denoise",
}
_SERVICE_INPUTS = (("prompt", "positive"), ("negative_prompt", "negative"))
_BRANCHES = ("on_true", "on_false")
_MODEL_INPUTS = ("ckpt_name", "unet_name", "model_name", "ckpt", "gguf_name")


@dataclass(frozen=True, slots=True)
class GraphPrompt:
    """What a graph asked for; `negative` is empty where there is none."""

    positive: str
    negative: str
    settings: dict[str, str]


def read_graph(graph: Mapping[str, object]) -> GraphPrompt | None:
    """The texts and settings of the sampler that made the saved picture.

    Where samplers follow each other (base and refiner, upscaling, faces), the first one counts: it had the picture's prompt.
    Several texts of one sampler are joined by a comma and a space, equal ones once.

    Args:
        graph: node id to {"class_type", "inputs"}, as ComfyUI's API takes it; anything else in it is passed over.

    Returns:
        None where no sampler with a text is found, or where there are more than `MAX_NODES` nodes or `MAX_LINKS` links.
    """
    if len(graph) > MAX_NODES:
        return None
    nodes = {str(key): node for key, value in graph.items() if (node := _node(value)) is not None}
    if sum(len(node.links) for node in nodes.values()) > MAX_LINKS:
        return None
    walk = _Walk(nodes)
    sampler = walk.first_sampler()
    if sampler is None:
        return walk.prompt_without_sampler()
    positive, negative = walk.prompt(sampler, "positive"), walk.prompt(sampler, "negative")
    if not positive:
        return None
    return GraphPrompt(positive, "" if negative == positive else negative, walk.settings(sampler))


@dataclass(frozen=True, slots=True)
class _Node:
    """`links` are (input, id of the node it comes from)."""

    kind: str
    inputs: dict[str, object]
    links: tuple[tuple[str, str], ...]


def _node(value: object) -> _Node | None:
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), dict):
        return None
    inputs = {str(key): item for key, item in value["inputs"].items()}
    links = tuple((key, target) for key, item in inputs.items() if (target := _target(item)) is not None)
    return _Node(str(value.get("class_type", "")), inputs, links)


def _target(value: object) -> str | None:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int):
        return str(value[0])
    return None


class _Walk:
    def __init__(self, nodes: dict[str, _Node]) -> None:
        self._nodes = nodes

    def first_sampler(self) -> str | None:
        """The sampler that is first in the chain behind a saved picture."""
        sampler = self._nearest_sampler(self._ends(), set())
        seen: set[str] = set()
        while sampler is not None and len(seen) < _MAX_SAMPLERS:
            seen.add(sampler)
            before = [target for key, target in self._nodes[sampler].links if key not in _TO_TEXT]
            earlier = self._nearest_sampler(before, seen)
            if earlier is None:
                break
            sampler = earlier
        return sampler

    def _ends(self) -> list[str]:
        """The nodes that save a picture, then others that nothing follows."""
        followed = {target for node in self._nodes.values() for _, target in node.links}
        return sorted(self._nodes.keys() - followed, key=lambda key: ("save" not in self._nodes[key].kind.lower(), key))

    def prompt_without_sampler(self) -> GraphPrompt | None:
        """The prompt of the node nearest to the saved picture that has one, as nodes that ask a service for a picture do."""
        waiting, seen = deque(self._ends()), set[str]()
        while waiting:
            key = waiting.popleft()
            node = self._nodes.get(key)
            if node is None or key in seen:
                continue
            seen.add(key)
            if "prompt" in node.inputs and not _MADE_TEXT.search(node.kind):
                positive, negative = (self._input(node, name, side) for name, side in _SERVICE_INPUTS)
                if positive:
                    return GraphPrompt(positive, negative, self.settings(key))
            waiting.extend(target for _, target in node.links)
        return None

    def _input(self, node: _Node, name: str, side: str) -> str:
        value = node.inputs.get(name)
        return _joined([value] if isinstance(value, str) else self._texts(_target(value), side, set(), 0), ", ")

    def _nearest_sampler(self, starts: list[str], passed: set[str]) -> str | None:
        waiting, seen = deque(starts), set(passed)
        while waiting:
            key = waiting.popleft()
            node = self._nodes.get(key)
            if node is None or key in seen:
                continue
            seen.add(key)
            if self._is_sampler(node):
                return key
            waiting.extend(target for _, target in node.links)
        return None

    @staticmethod
    def _is_sampler(node: _Node) -> bool:
        return not _SAMPLER_INPUTS.isdisjoint(node.inputs) and any(key in node.inputs for key in _PROMPT_INPUTS["positive"])

    def prompt(self, sampler: str, side: str) -> str:
        """The texts on one side, "positive" or "negative"."""
        node = self._nodes[sampler]
        return self._input(node, next((key for key in _PROMPT_INPUTS[side] if key in node.inputs), ""), side)

    def _texts(self, key: str | None, side: str, seen: set[str], depth: int) -> list[str]:
        node = self._nodes.get(key or "")
        if key is None or node is None or key in seen or depth > _MAX_DEPTH:
            return []
        seen.add(key)
        if _MADE_TEXT.search(node.kind):
            return []
        if choices := self._choices(node):
            found = (self._input_texts(node, name, side, seen, depth) for name in choices)
            return next((texts for texts in found if any(text.strip() for text in texts)), [])
        other = "negative" if side == "positive" else "positive"
        texts: list[str] = []
        for name in node.inputs:
            passed_over = other in name.lower() or (name == "wildcard_text" and "populated_text" in node.inputs)
            if not passed_over and not (name == _SHOWN_TEXT and texts):
                texts.extend(self._input_texts(node, name, side, seen, depth))
        glue = next((node.inputs[name] for name in ("delimiter", "separator") if name in node.inputs), None)
        return [_joined(texts, glue)] if isinstance(glue, str) else texts

    def _input_texts(self, node: _Node, name: str, side: str, seen: set[str], depth: int) -> list[str]:
        value = node.inputs.get(name)
        target = _target(value)
        if target is not None and not _WITHOUT_TEXT.match(name.lower()):
            return self._texts(target, side, seen, depth + 1)
        return [value] if isinstance(value, str) and (_TEXT_INPUT.fullmatch(name.lower()) or name in _BRANCHES) else []

    def _choices(self, node: _Node) -> list[str]:
        """The inputs of a node that hands on one of several, the chosen one first; empty for other nodes."""
        inputs = node.inputs
        if all(name in inputs for name in _BRANCHES):
            target = _target(inputs.get("switch"))
            switch = self._nodes[target].inputs.get("value") if target in self._nodes else inputs.get("switch")
            return list(_BRANCHES if switch is not False else reversed(_BRANCHES))
        if isinstance(chosen := inputs.get("select"), int) and f"input{chosen}" in inputs:
            return [f"input{chosen}"]
        if "any_01" in inputs:
            return sorted(name for name in inputs if name.startswith("any_"))
        return []

    def settings(self, sampler: str) -> dict[str, str]:
        """Seed, steps, scale, sampler, scheduler, strength and model, from the sampler and the nodes that feed them to it."""
        node = self._nodes[sampler]
        feeding = [target for key, target in node.links if key in _SAMPLER_INPUTS | {"guider"}]
        parts = [node, *(self._nodes[target] for target in feeding if target in self._nodes)]
        found: dict[str, str] = {}
        for part in parts:
            for key, value in part.inputs.items():
                if key in _SETTINGS and isinstance(value, str | int | float):
                    found.setdefault(_SETTINGS[key], str(value))
        model = self._model([target for part in parts for key, target in part.links if key == "model"])
        return found | ({"model": model} if model else {})

    def _model(self, starts: list[str]) -> str:
        waiting, seen = deque(starts), set[str]()
        while waiting:
            key = waiting.popleft()
            node = self._nodes.get(key)
            if node is None or key in seen:
                continue
            seen.add(key)
            for name in _MODEL_INPUTS:
                if isinstance(value := node.inputs.get(name), str):
                    return value
            waiting.extend(target for _, target in node.links)
        return ""


def _joined(texts: list[str], glue: str) -> str:
    """Texts that are not blank, in their order, equal ones once."""
    return glue.join(dict.fromkeys(text.strip() for text in texts if text.strip()))
