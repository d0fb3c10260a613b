"""The prompt of a ComfyUI graph: from the saved picture back to its first sampler.

sd-parsers is not used: it needs the editor's workflow in addition to the graph, only knows samplers
with their steps and scale as inputs (not the guider and noise nodes of Flux and later models), and
follows each sampler separately.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from imprompt.images.prompts.comfyui.graph import Graph, Link, Node, parse_graph
from imprompt.images.prompts.comfyui.node_table import makes_pictures
from imprompt.images.prompts.comfyui.node_values import FIELDS, SIDES, UNKNOWN, GraphValues, Value
from imprompt.images.prompts.comfyui.text_operations import as_text
from imprompt.images.prompts.prompt_parts import PromptParts

_MAX_SAMPLERS = 50
_MAX_OUTPUTS = 50
_MAX_STEPS = 100_000
"""Limit of the links followed from pictures to samplers, in total."""

_SAMPLER_INPUTS = frozenset(
    {"seed", "noise_seed", "noise", "steps", "sampler", "sampler_name", "sigmas"}
)
_SIDE_INPUTS = frozenset({*FIELDS["positive"], "basic_pipe", "pipe", "sdxl_tuple"})
_SAVES = re.compile(r"save|VideoCombine|(image|picture).?(output|writer)", re.IGNORECASE)
_BATCHES = re.compile(r"batch|list|comparer", re.IGNORECASE)
_SHOWS = re.compile(r"preview|output|display|compar|view", re.IGNORECASE)
# Nodes that ComfyUI only runs for another node that saves or shows a picture.
_NO_OUTPUTS = frozenset(
    {
        "KSampler",
        "KSamplerAdvanced",
        "SamplerCustom",
        "SamplerCustomAdvanced",
        "VAEDecode",
        "VAEEncode",
    }
)
_PLAIN_SAMPLERS = frozenset({"KSampler"})
_ENCODES = frozenset({"VAEEncode", "VAEEncodeTiled"})
_STAGE = "stage_c"
"""The input through which Stable Cascade's second stage gets the picture of its first."""
_SAMPLES = re.compile(r"sampl|detail|upscal|inpaint|generat|refin", re.IGNORECASE)
# Inputs that a picture is made from, without those that only guide it (reference, control, style).
_PICTURE = re.compile(
    r"(optional_|init_|base_|input_|original_)?(latent|latents|latent_image|samples?|images?|pixels"
    r"|frames|video|segs)[_]?\d*|destination|background|(basic_|loader_|detailer_)?pipe|base_ctx|ctx_?\d*"
    r"|context|sdxl_tuple|any.*|anything|input.*|value\d*|on_true|on_false|tt_value|ff_value|\*"
)
_FROM_SAMPLER = re.compile(
    r"(optional_|init_|base_|input_)?(latent|latents|latent_image|samples?|images?|pixels)"
    r"|(basic_|loader_|detailer_)?pipe|base_ctx|ctx|context|sdxl_tuple"
)
_NO_PICTURE = re.compile(
    r"(?i)(model|clip|vae|positive|negative|cond|text|prompt|string|control|mask|noise|sigma"
    r"|sampler|guider|lora|ipadapter|style|ref|width|height|seed|steps|cfg|start_|end_|upscale_model"
    r"|face|source|script|hook|image_ref|\w{0,40}_ref(erence)?(_image)?$)"
)


def read_graph(value: Mapping[str, object]) -> PromptParts | None:
    """Return the texts and settings of the sampler that made the saved picture.

    In a chain of samplers (base and refiner, upscaling, faces), the first one has the picture's
    prompt. Several texts of one side are joined by ", ", equal ones once.

    Args:
        value: node id to {"class_type", "inputs"}, as ComfyUI's API takes it.

    Returns:
        None where no picture with a text is found, or where the graph is too large.
    """
    graph = parse_graph(value)
    if graph is None:
        return None
    search = _SamplerSearch(graph)
    samplers = search.first_samplers()
    if not samplers:
        ordered = search.service_prompt()
        if ordered is not None:
            return ordered
        samplers = search.first_samplers(saved=False)
    prompts = [search.prompt(sampler) for sampler in samplers]
    if not prompts:
        return None
    # By their texts, not by the order of the nodes, which has no meaning.
    first = min(prompts, key=lambda parts: (not parts.prompt, *_sortable(parts)))
    if len({(parts.prompt, parts.negative) for parts in prompts}) > 1 and not first.doubt:
        first = replace(first, doubt="several pictures are saved, and this file is one of them")
    return first if first.prompt else None


def _sortable(parts: PromptParts) -> tuple[str, str, str, str]:
    return parts.prompt, parts.negative, parts.doubt, repr(sorted(parts.settings.items()))


class _SamplerSearch:
    """Follows a graph's links from saved pictures back to the first samplers."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._values = GraphValues(graph)
        self._steps_left = _MAX_STEPS
        self._downstream = self._nodes_after(key for key in graph if self._is_sampler(key))

    def first_samplers(self, *, saved: bool = True) -> list[str]:
        """Return the first samplers of the chains that lead to the saved pictures.

        With `saved` false, chains lead to nodes without followers: a program took their output.
        """
        find = self._output_nodes if saved else self._nodes_without_followers
        outputs = find(self._downstream)[:_MAX_OUTPUTS]
        starts = [link for output in outputs for link in self._picture_sources(output)]
        samplers = {self._first_sampler(link) for link in starts[:_MAX_OUTPUTS]}
        return [sampler for sampler in samplers if sampler is not None]

    def _picture_sources(self, output: str) -> list[Link]:
        """Return the links that bring an output node its pictures; a batch has several."""
        waiting, sources, seen = [Link(output, 0)], list[Link](), set[Link]()
        while waiting and len(sources) < _MAX_OUTPUTS and self._steps_left > 0:
            link = waiting.pop()
            self._steps_left -= 1
            if link in seen:
                continue
            seen.add(link)
            is_sampler = self._is_sampler(link.node)
            links = [] if is_sampler else self._picture_links(link.node, link.slot)
            further = [before for before in links if before.node in self._downstream]
            # Follow the chosen link of a node that chooses, or all where the choice is unknown.
            chose = self._values.chosen_inputs(link.node, link.slot) is not None
            is_several = chose or _BATCHES.search(self._graph[link.node].kind) is not None
            if not is_sampler and (len(further) == 1 or (further and is_several)):
                waiting.extend(further)
            else:
                sources.append(link)
        return sources

    def _output_nodes(self, among: set[str]) -> list[str]:
        """Return the nodes that save a picture, or else those without followers."""
        saves = [key for key in among if _SAVES.search(self._graph[key].kind)]
        if saves:
            return saves
        last = self._nodes_without_followers(among)
        last = [key for key in last if self._graph[key].kind not in _NO_OUTPUTS]
        return [key for key in last if _SHOWS.search(self._graph[key].kind)] or last

    def _nodes_without_followers(self, among: set[str]) -> list[str]:
        followed = {link.node for node in self._graph.values() for link in node.links.values()}
        return [key for key in among if key not in followed]

    def _nodes_after(self, samplers: Iterable[str]) -> set[str]:
        """Return the samplers and all nodes whose picture may come from one."""
        followers: dict[str, list[str]] = {}
        for key, node in self._graph.items():
            for name, link in node.links.items():
                if not _is_unrelated(name):
                    followers.setdefault(link.node, []).append(key)
        waiting, seen = deque(samplers), set[str]()
        while waiting:
            key = waiting.popleft()
            if key not in seen:
                seen.add(key)
                waiting.extend(followers.get(key, ()))
        return seen

    def _first_sampler(self, start: Link) -> str | None:
        sampler: str | None = None
        visited: set[str] = set()
        links = [start]
        while len(visited) < _MAX_SAMPLERS:
            earlier = self._nearest_sampler(links, visited)
            if earlier is None:
                break
            sampler = earlier
            visited.add(sampler)
            links = [] if self._starts_from_noise(sampler) else self._links_from_samplers(sampler)
        return sampler

    def _starts_from_noise(self, sampler: str) -> bool:
        """Return whether a sampler keeps nothing of the picture that is encoded for it.

        Edit models run this way: they see that picture in addition to the latent.
        """
        node = self._graph[sampler]
        if node.kind not in _PLAIN_SAMPLERS:
            return False
        strength = self._values.field(sampler, "denoise")
        if not isinstance(strength.data, int | float) or strength.data < 1 or strength.doubt:
            return False
        link = node.links.get("latent_image")
        for _ in range(_MAX_SAMPLERS):
            before = self._graph.get(link.node) if link is not None else None
            if link is None or before is None or any("mask" in name for name in before.inputs):
                return False
            if before.kind in _ENCODES:
                return True
            is_sampler = self._is_sampler(link.node)
            links = [] if is_sampler else self._picture_links(link.node, link.slot)
            link = links[0] if len(links) == 1 else None
        return False

    def _links_from_samplers(self, sampler: str) -> list[Link]:
        """Return the links that bring a sampler the result of an earlier one."""
        links = self._graph[sampler].links
        link = links.get("positive")
        for _ in range(_MAX_SAMPLERS):
            before = self._graph.get(link.node) if link is not None else None
            if link is None or before is None:
                break
            if _STAGE in before.links:
                return [before.links[_STAGE]]
            chosen = self._values.chosen_inputs(link.node, link.slot) or []
            link = before.links.get(chosen[0]) if len(chosen) == 1 else None
        return [link for name, link in links.items() if _is_from_sampler(name)]

    def _nearest_sampler(self, starts: list[Link], visited: set[str]) -> str | None:
        waiting, seen = deque(starts), set(visited)
        while waiting and self._steps_left > 0:
            link = waiting.popleft()
            self._steps_left -= 1
            if link.node in seen or link.node not in self._downstream:
                continue
            seen.add(link.node)
            if self._is_sampler(link.node):
                return link.node
            waiting.extend(self._picture_links(link.node, link.slot))
        return None

    def _picture_links(self, key: str, slot: int) -> list[Link]:
        """Return the links that bring a node its picture; only the chosen one where it chooses."""
        node = self._graph[key]
        chosen = self._values.chosen_inputs(key, slot)
        if chosen is not None:
            return [node.links[name] for name in chosen if name in node.links]
        likely = [link for name, link in node.links.items() if _is_picture(name)]
        return likely or [link for name, link in node.links.items() if not _is_unrelated(name)]

    def _is_sampler(self, key: str) -> bool:
        node = self._graph[key]
        kind = self._values.kind_of(node)
        if kind is not None:
            return kind.sampler
        inputs = node.inputs.keys()
        return not _SAMPLER_INPUTS.isdisjoint(inputs) and not _SIDE_INPUTS.isdisjoint(inputs)

    def prompt(self, sampler: str) -> PromptParts:
        """Return the texts on both sides of a sampler."""
        node = self._graph[sampler]
        sides = [self._values.field(sampler, side) for side in SIDES]
        positive, negative = (_conditioning(side) for side in sides)
        doubt = next((side.doubt for side in sides if side.doubt), "")
        if self._values.kind_of(node) is None and not _SAMPLES.search(node.kind):
            doubt = doubt or f"{node.kind}: {UNKNOWN}"
        if self._steps_left <= 0:
            doubt = doubt or "the graph is too large to follow"
        kept = "" if negative == positive else negative
        return PromptParts(positive, kept, self._settings(sampler), doubt)

    def service_prompt(self) -> PromptParts | None:
        """Return the prompt of a picture that a service made; the graph has no sampler then."""
        outputs = self._output_nodes(set(self._graph))[:_MAX_OUTPUTS]
        requests = [parts for node in outputs if (parts := self._service_request(node)) is not None]
        return min(requests, key=_sortable, default=None)

    def _service_request(self, output: str) -> PromptParts | None:
        waiting, seen = deque([Link(output, 0)]), set[str]()
        while waiting:
            link = waiting.popleft()
            node = self._graph.get(link.node)
            if node is None or link.node in seen:
                continue
            seen.add(link.node)
            if "prompt" in node.inputs and makes_pictures(node.kind, node.inputs):
                return self._service_parts(link.node, node)
            waiting.extend(self._picture_links(link.node, link.slot))
        return None

    def _service_parts(self, key: str, node: Node) -> PromptParts | None:
        sides = [self._values.input(key, name) for name in ("prompt", "negative_prompt")]
        positive, negative = (_conditioning(side) for side in sides)
        doubt = next((side.doubt for side in sides if side.doubt), "")
        kind = self._values.kind_of(node)
        if kind is None or not kind.service:
            doubt = doubt or f"{node.kind}: {UNKNOWN}"
        return PromptParts(positive, negative, self._settings(key), doubt) if positive else None

    def _settings(self, sampler: str) -> dict[str, str]:
        """Return seed, steps, scale, sampler, scheduler, strength, model and size."""
        settings: dict[str, str] = {}
        for name in FIELDS:
            if name in SIDES:
                continue
            value = self._values.field(sampler, name)
            if isinstance(value.data, str | int | float) and not value.doubt:
                settings[name] = as_text(value.data)
        size = [settings.pop(name, "") for name in ("width", "height")]
        return settings | ({"size": "x".join(size)} if all(size) else {})


def _conditioning(value: Value) -> str:
    """Return the texts of one side, joined."""
    texts = value.data if isinstance(value.data, tuple) else (value.data,)
    stripped = (as_text(text).strip() for text in texts)
    return ", ".join(dict.fromkeys(text for text in stripped if text))


@lru_cache(maxsize=4096)
def _is_picture(name: str) -> bool:
    return _PICTURE.fullmatch(name.lower()) is not None


@lru_cache(maxsize=4096)
def _is_from_sampler(name: str) -> bool:
    return _FROM_SAMPLER.fullmatch(name.lower()) is not None


@lru_cache(maxsize=4096)
def _is_unrelated(name: str) -> bool:
    return _NO_PICTURE.match(name) is not None
