"""The prompt of a ComfyUI graph: from the saved picture back to the sampler that began it.

sd-parsers is not used here: it needs the editor's workflow beside the graph, knows only samplers
that hold their steps and scale themselves (not the guider and noise nodes of Flux and later
models), and follows every sampler on its own.
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
_MAX_ENDS = 50
_MAX_STEPS = 100_000
"""Links that are followed from pictures to samplers, all together."""

_SAMPLER_INPUTS = frozenset(
    {"seed", "noise_seed", "noise", "steps", "sampler", "sampler_name", "sigmas"}
)
_SIDE_INPUTS = frozenset({*FIELDS["positive"], "basic_pipe", "pipe", "sdxl_tuple"})
_SAVES = re.compile(r"save|VideoCombine|(image|picture).?(output|writer)", re.IGNORECASE)
_BATCHES = re.compile(r"batch|list|comparer", re.IGNORECASE)
_SHOWS = re.compile(r"preview|output|display|compar|view", re.IGNORECASE)
# Nodes that ComfyUI runs only for another one that saves or shows a picture.
_NO_ENDS = frozenset(
    {
        "KSampler",
        "KSamplerAdvanced",
        "SamplerCustom",
        "SamplerCustomAdvanced",
        "VAEDecode",
        "VAEEncode",
    }
)
_FRESH = frozenset({"KSampler"})
_ENCODES = frozenset({"VAEEncode", "VAEEncodeTiled"})
_STAGE = "stage_c"
"""Where Stable Cascade's second stage gets the picture that its first one made."""
_SAMPLES = re.compile(r"sampl|detail|upscal|inpaint|generat|refin", re.IGNORECASE)
# What a picture is made from. Pictures that only guide (reference, control, style) are left out.
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

    Where samplers follow each other (base and refiner, upscaling, faces), the first one counts: it
    had the picture's prompt. Several texts of one side are joined by ", ", equal ones once.

    Args:
        value: node id to {"class_type", "inputs"}, as ComfyUI's API takes it.

    Returns:
        None where no picture with a text is found, or where the graph is too large.
    """
    graph = parse_graph(value)
    if graph is None:
        return None
    walk = _SamplerWalk(graph)
    samplers = walk.first_samplers()
    if not samplers:
        ordered = walk.service_prompt()
        if ordered is not None:
            return ordered
        samplers = walk.first_samplers(saved=False)
    found = [walk.prompt(sampler) for sampler in samplers]
    texts = {(prompt.prompt, prompt.negative) for prompt in found}
    if not found:
        return None
    # By its texts, not by the order of the nodes, which says nothing.
    first = min(found, key=lambda prompt: (not prompt.prompt, *_sortable(prompt)))
    if len(texts) > 1 and not first.doubt:
        first = replace(first, doubt="several pictures are saved, and this file is one of them")
    return first if first.prompt else None


def _sortable(prompt: PromptParts) -> tuple[str, str, str, str]:
    return prompt.prompt, prompt.negative, prompt.doubt, repr(sorted(prompt.settings.items()))


class _SamplerWalk:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._values = GraphValues(graph)
        self._left = _MAX_STEPS
        self._leads = self._leading(key for key in graph if self._is_sampler(key))

    def first_samplers(self, *, saved: bool = True) -> list[str]:
        """Return the samplers that are first in the chains behind the saved pictures.

        Where no picture is saved (a program took it from the sampler), behind what nothing follows.
        """
        ends = self._ends(self._leads) if saved else self._loose(self._leads)
        starts = [link for end in ends[:_MAX_ENDS] for link in self._pictures(end)]
        found = {self._first_sampler(link) for link in starts[:_MAX_ENDS]}
        return [sampler for sampler in found if sampler is not None]

    def _pictures(self, end: str) -> list[Link]:
        """Where the pictures that a node saves come from: several where they were put into one batch."""
        waiting, found, seen = [Link(end, 0)], list[Link](), set[Link]()
        while waiting and len(found) < _MAX_ENDS and self._left > 0:
            link = waiting.pop()
            self._left -= 1
            if link in seen:
                continue
            seen.add(link)
            is_sampler = self._is_sampler(link.node)
            links = [] if is_sampler else self._picture_links(link.node, link.slot)
            leading = [before for before in links if before.node in self._leads]
            # A node that chooses leads on by one link, or by all where its choice is not known.
            chose = self._values.chosen_inputs(link.node, link.slot) is not None
            is_several = chose or _BATCHES.search(self._graph[link.node].kind) is not None
            if not is_sampler and (len(leading) == 1 or (leading and is_several)):
                waiting.extend(leading)
            else:
                found.append(link)
        return found

    def _ends(self, among: set[str]) -> list[str]:
        """The nodes that save a picture, or else those that nothing follows."""
        ends = [key for key in among if _SAVES.search(self._graph[key].kind)]
        if ends:
            return ends
        ends = [key for key in self._loose(among) if self._graph[key].kind not in _NO_ENDS]
        return [key for key in ends if _SHOWS.search(self._graph[key].kind)] or ends

    def _loose(self, among: set[str]) -> list[str]:
        followed = {link.node for node in self._graph.values() for link in node.links.values()}
        return [key for key in among if key not in followed]

    def _leading(self, samplers: Iterable[str]) -> set[str]:
        """The nodes whose picture may come from a sampler."""
        followers: dict[str, list[str]] = {}
        for key, node in self._graph.items():
            for name, link in node.links.items():
                if not _is_apart(name):
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
        passed: set[str] = set()
        links = [start]
        while len(passed) < _MAX_SAMPLERS:
            earlier = self._nearest(links, passed)
            if earlier is None:
                break
            sampler = earlier
            passed.add(sampler)
            links = [] if self._begins_anew(sampler) else self._sampled_links(sampler)
        return sampler

    def _begins_anew(self, sampler: str) -> bool:
        """Return whether nothing is left of the picture that was encoded for it.

        Edit models are run so: they see that picture beside the latent.
        """
        node = self._graph[sampler]
        if node.kind not in _FRESH:
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

    def _sampled_links(self, sampler: str) -> list[Link]:
        """The links that bring a sampler what another one made."""
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
        return [link for name, link in links.items() if _is_sampled(name)]

    def _nearest(self, starts: list[Link], passed: set[str]) -> str | None:
        waiting, seen = deque(starts), set(passed)
        while waiting and self._left > 0:
            link = waiting.popleft()
            self._left -= 1
            if link.node in seen or link.node not in self._leads:
                continue
            seen.add(link.node)
            if self._is_sampler(link.node):
                return link.node
            waiting.extend(self._picture_links(link.node, link.slot))
        return None

    def _picture_links(self, key: str, slot: int) -> list[Link]:
        """The links that bring the picture to a node, by what it chose."""
        node = self._graph[key]
        chosen = self._values.chosen_inputs(key, slot)
        if chosen is not None:
            return [node.links[name] for name in chosen if name in node.links]
        likely = [link for name, link in node.links.items() if _is_picture(name)]
        return likely or [link for name, link in node.links.items() if not _is_apart(name)]

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
        if self._left <= 0:
            doubt = doubt or "the graph is too large to follow"
        kept = "" if negative == positive else negative
        return PromptParts(positive, kept, self._settings(sampler), doubt)

    def service_prompt(self) -> PromptParts | None:
        """Return the prompt that the picture was ordered with, where no sampler is."""
        ends = self._ends(set(self._graph))[:_MAX_ENDS]
        found = [prompt for end in ends if (prompt := self._ordered(end)) is not None]
        return min(found, key=_sortable, default=None)

    def _ordered(self, end: str) -> PromptParts | None:
        waiting, seen = deque([Link(end, 0)]), set[str]()
        while waiting:
            link = waiting.popleft()
            node = self._graph.get(link.node)
            if node is None or link.node in seen:
                continue
            seen.add(link.node)
            if "prompt" in node.inputs and makes_pictures(node.kind, node.inputs):
                return self._order(link.node, node)
            waiting.extend(self._picture_links(link.node, link.slot))
        return None

    def _order(self, key: str, node: Node) -> PromptParts | None:
        sides = [self._values.input(key, name) for name in ("prompt", "negative_prompt")]
        positive, negative = (_conditioning(side) for side in sides)
        doubt = next((side.doubt for side in sides if side.doubt), "")
        kind = self._values.kind_of(node)
        if kind is None or not kind.service:
            doubt = doubt or f"{node.kind}: {UNKNOWN}"
        return PromptParts(positive, negative, self._settings(key), doubt) if positive else None

    def _settings(self, sampler: str) -> dict[str, str]:
        """Seed, steps, scale, sampler, scheduler, strength, model and size, through links too."""
        held = {name: self._values.field(sampler, name) for name in FIELDS if name not in SIDES}
        found = {
            name: as_text(value.data)
            for name, value in held.items()
            if isinstance(value.data, str | int | float) and not value.doubt
        }
        size = [found.pop(name, "") for name in ("width", "height")]
        return found | ({"size": "x".join(size)} if all(size) else {})


def _conditioning(value: Value) -> str:
    """The texts of one side."""
    texts = value.data if isinstance(value.data, tuple) else (value.data,)
    stripped = (as_text(text).strip() for text in texts)
    return ", ".join(dict.fromkeys(text for text in stripped if text))


@lru_cache(maxsize=4096)
def _is_picture(name: str) -> bool:
    return _PICTURE.fullmatch(name.lower()) is not None


@lru_cache(maxsize=4096)
def _is_sampled(name: str) -> bool:
    return _FROM_SAMPLER.fullmatch(name.lower()) is not None


@lru_cache(maxsize=4096)
def _is_apart(name: str) -> bool:
    return _NO_PICTURE.match(name) is not None
