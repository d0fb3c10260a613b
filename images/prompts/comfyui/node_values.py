"""The values in a ComfyUI graph, computed as the graph computes them.

A value is requested by (node, output slot, field), where the field selects a part of a pipe, and
computed once. The rules come from `nodes.toml`. The value of any other node is guessed by the names
of its inputs; every value that depends on such a guess has a doubt.

A rule is a generator: it yields the requests that it needs and is sent their values.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, replace

from imprompt.images.prompts.comfyui.graph import Graph, Link, Node
from imprompt.images.prompts.comfyui.node_table import (
    Expression,
    NodeKind,
    is_model_text,
    node_kinds,
)
from imprompt.images.prompts.comfyui.text_operations import (
    MAX_TEXT,
    OPERATIONS,
    NotComputed,
    as_int,
    as_text,
    is_on,
)

Request = tuple[str, int, str]
Steps = Generator[Request, "Value", "Value"]

FIELDS: dict[str, tuple[str, ...]] = {
    "positive": ("positive", "pos", "conditioning", "cond1", "text_embeds", "guider"),
    "negative": ("negative", "neg", "neg_conditioning", "text_embeds", "guider"),
    "seed": ("seed", "noise_seed", "rand_seed", "main_seed", "noise"),
    "steps": ("steps", "steps_total", "sigmas"),
    "cfg_scale": ("cfg", "cfg_scale", "guidance_scale", "guider"),
    "sampler": ("sampler_name", "sampler"),
    "scheduler": ("scheduler", "sigmas"),
    "denoise": ("denoise", "sigmas"),
    "model": (
        *("ckpt_name", "unet_name", "model_name", "base_ckpt_name", "ckpt", "gguf_name"),
        *("model_path", "stage_c", "model", "guider", "sigmas"),
    ),
    "width": ("width", "empty_latent_width", "latent_image", "latent", "samples"),
    "height": ("height", "empty_latent_height", "latent_image", "latent", "samples"),
}
"""The inputs in which nodes keep what a sampler needs, the likeliest first."""

SIDES = ("positive", "negative")
_SETTINGS = FIELDS.keys() - set(SIDES)
_PIPES = (
    *("pipe", "basic_pipe", "base_ctx", "ctx", "context", "sdxl_tuple", "bus", "detailer_pipe"),
    *("model_pipe", "loader_pipe", "sampler_params"),
)
# Links that lead to weights or pixels, never to a text.
_WITHOUT_TEXT = re.compile(
    r"(clip|model|vae|image|latent|sample|pixel|mask|control|noise|sigma|lora|ipadapter|style_model"
    r"|width|height|seed|steps|cfg)"
)
_TEXT_INPUT = re.compile(
    r"((pre|post|prepend|append|user|main|base|global|local|edit|opt|optional|input|caption)_?)?"
    r"(text|string|prompt|value|t5xxl|clip_[lg]|llama|bert|mt5xl|gemma|qwen\w{0,8}|populated|caption"
    r"|description|positive|negative|pos|neg|part|line)(_?\w{1,20})?"
)
_NO_TEXT_INPUT = re.compile(
    r".*(delimiter|separator|_name|_path|mode|normali[sz]ation|interpretation|system|instruct|question"
    r"|query|task|api_key|negative_style).*"
)
_SIDE_NAMES = {
    "positive": re.compile(r"(?i)(.*_)?(positive|pos)(_.*|\d*)?"),
    "negative": re.compile(r"(?i)(.*_)?(negative|neg|uncond)(_.*|\d*)?"),
}
_SHOWN_TEXT = "text_0"
"""The input of nodes that show a text, perhaps from an earlier run."""

_COUNT = "inputcount"
"""The number of numbered inputs that count; links to further ones may be leftovers."""

_MAX_PARTS = 128
_MAX_REGEXES = 64
_MAX_COMPUTED = 8 * MAX_TEXT
_REASONS = {
    "model": "written by a model",
    "random": "a random choice that was not recorded",
    "file": "read from another file",
    "style": "adds texts that are not in the file",
    "schedule": "changes from frame to frame",
    "translation": "translated while it ran",
    "list": "makes several pictures of several texts",
    "built": "puts these texts together in its own way",
}
_TOO_MUCH = "the graph has too much to compute"
UNKNOWN = "a node that is not known here"


@dataclass(frozen=True, slots=True)
class Value:
    """The value of an output: a text, a number, a list, or the texts of a conditioning as a tuple.

    `data` is None where there is no value. `doubt` names the node that makes `data` uncertain, and
    why; it is empty where everything was computed.
    """

    data: object = None
    doubt: str = ""

    @property
    def is_empty(self) -> bool:
        return self.data is None and not self.doubt


NOTHING = Value()


class GraphValues:
    """The values of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._kinds = node_kinds()
        self._known: dict[Request, Value] = {}
        self._regexes = _MAX_REGEXES
        self._characters = _MAX_COMPUTED

    def kind_of(self, node: Node) -> NodeKind | None:
        """Return the table's line for a node."""
        return self._kinds.get(node.kind)

    def field(self, key: str, field: str) -> Value:
        """Return a node's value for `field`, one of `FIELDS`."""
        return self._run((key, -1, field))

    def input(self, key: str, name: str, field: str = "text") -> Value:
        """Return the value at an input of a node."""
        item = self._graph[key].inputs.get(name)
        if not isinstance(item, Link):
            return Value(item)
        return self._run((item.node, item.slot, field)) if item.node in self._graph else NOTHING

    def chosen_inputs(self, key: str, slot: int) -> list[str] | None:
        """Return the inputs that an output may come from, where the node chooses or passes one on.

        Returns:
            None where the table does not say.
        """
        node = self._graph[key]
        kind = self.kind_of(node)
        if kind is None or not 0 <= slot < len(kind.out):
            return None
        expression = kind.out[slot]
        if isinstance(expression, str):
            return [expression] if expression in node.inputs else None
        head = expression[0]
        if head == "if":
            test = self._evaluate(node, expression[1])
            branches = expression[2:4] if test.doubt else [expression[2 if is_on(test.data) else 3]]
            names = [name for name in branches if isinstance(name, str)]
            return names if len(names) == len(branches) else None
        if head == "pick":
            test = self._evaluate(node, expression[1])
            if _is_undecided(node, expression[1], test):
                return _branches(node, str(expression[2]))
            return [self._chosen_input(str(expression[2]), test)]
        if head == "first":
            names = _matching_inputs(node, expression[1:])
            return [name for name in names if self._has_value(node, name)][:1]
        return None

    def _has_value(self, node: Node, name: str) -> bool:
        item = node.inputs.get(name)
        return item.node in self._graph if isinstance(item, Link) else item is not None

    def _evaluate(self, node: Node, expression: Expression) -> Value:
        """Return the value of an expression outside any other computation."""
        steps = self._expression(node, expression, "text")
        try:
            request = next(steps)
            while True:
                request = steps.send(self._run(request))
        except StopIteration as end:
            return end.value if isinstance(end.value, Value) else NOTHING

    def _run(self, request: Request) -> Value:
        """Compute a value on an explicit stack: graphs may be deeper than Python's."""
        if request in self._known:
            return self._known[request]
        stack = [(request, self._steps(request))]
        busy = {request}
        answer: Value | None = None  # to the request of the steps on top; None starts them
        while stack:
            current, steps = stack[-1]
            try:
                needed = next(steps) if answer is None else steps.send(answer)
            except StopIteration as end:
                stack.pop()
                busy.discard(current)
                answer = self._known[current] = end.value
                continue
            if needed in self._known:
                answer = self._known[needed]
            elif needed in busy:
                answer = Value(None, f"{self._graph[needed[0]].kind}: the graph runs in a circle")
            else:
                busy.add(needed)
                stack.append((needed, self._steps(needed)))
                answer = None
        return self._known[request]

    def _steps(self, request: Request) -> Steps:
        key, slot, field = request
        node = self._graph[key]
        kind = self.kind_of(node)
        if slot == -1:
            return (yield from self._field(node, field))
        if kind is None or not kind.out:
            if kind is not None or field in _SETTINGS:
                return (yield from self._field(node, field))
            return (yield from self._guess(node, field))
        if slot >= len(kind.out):
            return (yield from self._guess(node, field))
        value = yield from self._expression(node, kind.out[slot], field)
        if value.is_empty and field in _SETTINGS:
            return (yield from self._field(node, field))
        return value

    def _expression(self, node: Node, expression: Expression, field: str) -> Steps:
        if isinstance(expression, str):
            return (yield from self._leaf(node, expression, field))
        head, *parts = expression
        if head in _SPECIAL:
            return (yield from _SPECIAL[str(head)](self, node, parts, field))
        return (yield from self._operation(node, str(head), parts))

    def _leaf(self, node: Node, name: str, field: str) -> Steps:
        if name.startswith("="):
            return Value(name[1:])
        if name.startswith("@"):
            return (yield from self._field(node, name[1:] or field))
        return (yield from self._input(node, name, field))

    def _input(self, node: Node, name: str, field: str) -> Steps:
        item = node.inputs.get(name)
        if not isinstance(item, Link):
            return Value(item)
        if item.node not in self._graph:
            return NOTHING
        return (yield item.node, item.slot, field)

    def _operation(self, node: Node, head: str, parts: list[Expression]) -> Steps:
        data, doubt = [], ""
        count = yield from self._input(node, _COUNT, "text")
        for part in self._expand(node, parts, count):
            value = yield from self._expression(node, part, "text")
            data.append(value.data)
            doubt = doubt or value.doubt
        if not self._may_compute(head):
            return Value(None, doubt or f"{node.kind}: {_TOO_MUCH}")
        try:
            result = OPERATIONS[head](*data)
        except NotComputed as error:
            return Value(error.text or None, doubt or f"{node.kind}: {error.reason}")
        if isinstance(result, str):
            self._characters -= len(result)
        return Value(result, doubt)

    def _may_compute(self, head: str) -> bool:
        self._regexes -= head.startswith(("regex", "core_regex", "string_function"))
        return self._regexes >= 0 and self._characters >= 0

    @staticmethod
    def _expand(node: Node, parts: list[Expression], count: Value) -> list[Expression]:
        """Replace each name that ends in "*" by the inputs with that prefix, as many as count."""
        expanded: list[Expression] = []
        most = as_int(count.data)
        for part in parts:
            is_pattern = isinstance(part, str) and part.endswith("*") and not part.startswith("=")
            names = _matching_inputs(node, [part]) if is_pattern else [part]
            expanded.extend(n for n in names if not (is_pattern and 0 < most < _number_in(str(n))))
        return expanded

    def _encode(self, node: Node, parts: list[Expression], _unused: str) -> Steps:
        """Return a conditioning of the texts, equal ones once."""
        return (yield from self._all(node, parts, "text"))

    def _all(self, node: Node, parts: list[Expression], field: str) -> Steps:
        """Return a conditioning of several conditionings or texts."""
        texts: dict[str, None] = {}
        doubt = ""
        count = yield from self._input(node, _COUNT, "text")
        for part in self._expand(node, parts, count):
            value = yield from self._expression(node, part, field)
            if isinstance(value.data, tuple):
                texts.update(dict.fromkeys(value.data))
            elif (text := as_text(value.data)).strip():
                texts[text] = None
            doubt = doubt or value.doubt
        if len(texts) > _MAX_PARTS:
            doubt = doubt or f"{node.kind}: more than {_MAX_PARTS} texts"
        if doubt and " ← " not in doubt and not doubt.startswith(f"{node.kind}:"):
            doubt = f"{node.kind} ← {doubt}"
        return Value(tuple(texts)[:_MAX_PARTS], doubt)

    def _none(self, _node: Node, _parts: list[Expression], _unused: str) -> Steps:
        """Return a conditioning without texts, as one that was zeroed."""
        return Value(())
        yield  # a generator like the others

    def _if(self, node: Node, parts: list[Expression], field: str) -> Steps:
        test = yield from self._expression(node, parts[0], "text")
        if test.is_empty and parts[0] in node.links:
            test = replace(test, doubt=f"{node.kind}: its switch is not in the file")
        value = yield from self._expression(node, parts[1 if is_on(test.data) else 2], field)
        return replace(value, doubt=value.doubt or test.doubt)

    def _pick(self, node: Node, parts: list[Expression], field: str) -> Steps:
        test = yield from self._expression(node, parts[0], "text")
        if _is_undecided(node, parts[0], test):
            return (
                yield from self._all_branches(node, _branches(node, str(parts[1])), test, field)
            )
        value = yield from self._input(node, self._chosen_input(str(parts[1]), test), field)
        return replace(value, doubt=value.doubt or test.doubt)

    def _all_branches(self, node: Node, names: list[str], test: Value, field: str) -> Steps:
        """Return the texts of all branches, where the chosen number is not in the file."""
        doubt = test.doubt or f"{node.kind}: its switch is not in the file"
        texts: dict[str, None] = {}
        for name in names[:_MAX_PARTS] if field not in _SETTINGS else ():
            value = yield from self._input(node, name, field)
            texts.update(dict.fromkeys(_filled_texts(value)))
        whole = ", ".join(texts)[:MAX_TEXT]
        self._characters -= len(whole)
        if self._characters < 0:
            return Value(None, f"{node.kind}: {_TOO_MUCH}")
        return Value(whole or None, doubt)

    @staticmethod
    def _chosen_input(pattern: str, test: Value) -> str:
        """Return the chosen input of a pattern; "{}" is its number, "{1}" its number from 1."""
        number = as_int(test.data) if not isinstance(test.data, str) else _number_in(test.data)
        return pattern.replace("{}", str(number)).replace("{1}", str(number + 1))

    def _first(self, node: Node, parts: list[Expression], field: str) -> Steps:
        """Return the first value; a link into a muted branch has none."""
        return (yield from self._first_of(node, _matching_inputs(node, parts), field))

    def _merged(self, node: Node, parts: list[Expression], field: str) -> Steps:
        """Return a field of several pipes: that of the last one that has it."""
        return (yield from self._first_of(node, _matching_inputs(node, parts)[::-1], field))

    def _first_of(self, node: Node, names: list[str], field: str) -> Steps:
        for name in names:
            value = yield from self._input(node, name, field)
            if not value.is_empty:
                return value
        return NOTHING

    def _or(self, node: Node, parts: list[Expression], field: str) -> Steps:
        """Return the first, or where its text is unknown what the file has in its place."""
        value = yield from self._expression(node, parts[0], field)
        if value.data is not None or not value.doubt:
            return value
        shown = yield from self._expression(node, parts[1], field)
        return replace(shown, doubt=value.doubt)

    def _other_field(self, node: Node, parts: list[Expression], _unused: str) -> Steps:
        """Return a field, by its name, of the pipe that an expression gives."""
        return (yield from self._expression(node, parts[1], str(parts[0])))

    def _doubt(self, node: Node, parts: list[Expression], field: str) -> Steps:
        """Return a value with a doubt: what the node does to the text is not in the file."""
        reason = f"{node.kind}: {_REASONS[str(parts[0])]}"
        value = NOTHING
        if len(parts) > 1:
            value = yield from self._expression(node, parts[1], field)
        return Value(value.data, value.doubt or reason)

    def _field(self, node: Node, field: str) -> Steps:
        """Return what the node puts into its pipe, or else the field of the pipe before it."""
        kind = self.kind_of(node)
        if kind is not None and field in kind.fields:
            value = yield from self._expression(node, kind.fields[field], field)
            if not value.is_empty:
                return value
        elif kind is None or not kind.fields or field in _SETTINGS:
            for name in FIELDS.get(field, (field,)):
                if name not in node.inputs or (field in SIDES and name in _PIPES):
                    continue
                value = yield from self._input(node, name, field)
                if _is_usable(value, field):
                    return value
        elif field in node.inputs:
            value = yield from self._input(node, field, field)
            if not value.is_empty:
                return value
        if kind is None and field in _SETTINGS and (plain := _only_value(node)) is not None:
            return Value(plain)
        for name in kind.base if kind is not None and kind.base else _PIPES:
            if name.endswith("*") or name in node.links:
                value = yield from self._merged(node, [name], field)
                if not value.is_empty:
                    return value
        return NOTHING

    def _guess(self, node: Node, field: str) -> Steps:
        """Return the texts of a node that is not in the table, by the names of its inputs."""
        if field in _SETTINGS:
            return (yield from self._field(node, field))
        if is_model_text(node.kind, node.inputs):
            return Value(None, f"{node.kind}: {_REASONS['model']}")
        doubt = f"{node.kind}: {UNKNOWN}"
        names = yield from self._switch_choice(node)
        texts: list[str] = []
        for name in names if names is not None else self._text_inputs(node, field):
            if name == _SHOWN_TEXT and texts:
                continue
            value = yield from self._input(node, name, field)
            texts.extend(_filled_texts(value))
            if value.doubt and UNKNOWN not in value.doubt:
                doubt = value.doubt
        glue = next((node.inputs[n] for n in ("delimiter", "separator") if n in node.inputs), ", ")
        unique = list(dict.fromkeys(text.strip() for text in texts))[:_MAX_PARTS]
        whole = (glue if isinstance(glue, str) else ", ").join(unique)[:MAX_TEXT]
        self._characters -= len(whole)
        if self._characters < 0:
            return Value(None, f"{node.kind}: {_TOO_MUCH}")
        return Value(whole or None, doubt)

    def _text_inputs(self, node: Node, field: str) -> list[str]:
        """Return the inputs that may hold texts of this side."""
        other = _SIDE_NAMES["positive" if field == "negative" else "negative"]
        names = []
        for name, item in node.inputs.items():
            low = name.lower()
            if other.fullmatch(name) or (
                name == "wildcard_text" and "populated_text" in node.inputs
            ):
                continue
            is_named = _TEXT_INPUT.fullmatch(low) is not None and not _NO_TEXT_INPUT.fullmatch(low)
            if is_named or (isinstance(item, Link) and not _WITHOUT_TEXT.match(low)):
                names.append(name)
        if not names:  # no name suggests a text: those whose value reads like one
            names = [name for name, item in node.inputs.items() if _is_prose(name, item)]
        of_side = [name for name in names if field in SIDES and _SIDE_NAMES[field].fullmatch(name)]
        return of_side or names

    def _switch_choice(self, node: Node) -> Generator[Request, Value, list[str] | None]:
        """Return the chosen input of a node that looks like a switch, else None."""
        inputs = node.inputs
        if "on_true" in inputs and "on_false" in inputs:
            names = [n for n in ("switch", "boolean", "condition", "cond", "value") if n in inputs]
            test = (yield from self._input(node, names[0], "text")) if names else Value(True)
            return ["on_true" if is_on(test.data) else "on_false"]
        for name in ("select", "index", "choice", "input", "Input"):
            if isinstance(inputs.get(name), str | None):
                continue
            test = yield from self._input(node, name, "text")
            number = as_int(test.data)
            for pattern in (f"input{number}", f"input_{number}", f"text{number}", f"text_{number}"):
                if pattern in inputs:
                    return [pattern]
        return None


_SPECIAL = {
    "encode": GraphValues._encode,
    "all": GraphValues._all,
    "none": GraphValues._none,
    "if": GraphValues._if,
    "pick": GraphValues._pick,
    "first": GraphValues._first,
    "merged": GraphValues._merged,
    "field": GraphValues._other_field,
    "or": GraphValues._or,
    "doubt": GraphValues._doubt,
}


def _is_undecided(node: Node, selector: Expression, test: Value) -> bool:
    """Return whether the number that chooses is not in the file."""
    return bool(test.doubt) or (test.data is None and selector in node.links)


def _branches(node: Node, pattern: str) -> list[str]:
    """Return the inputs among which a number chooses."""
    prefix = pattern.partition("{")[0]
    names = _matching_inputs(node, [prefix + "*"])
    return [name for name in names if name[len(prefix) :].isdecimal()]


def _only_value(node: Node) -> object:
    """Return the only number or text of a node, as of a constant; None if there is more."""
    (value, *others) = node.inputs.values() or (None,)
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if is_plain and not others else None


def _filled_texts(value: Value) -> list[str]:
    """Return the texts in a value that are not blank."""
    texts = value.data if isinstance(value.data, tuple) else (value.data,)
    return [text for text in texts if isinstance(text, str) and text.strip()]


def _is_prose(name: str, item: object) -> bool:
    return (
        isinstance(item, str) and " " in item.strip() and not _NO_TEXT_INPUT.fullmatch(name.lower())
    )


def _is_usable(value: Value, field: str) -> bool:
    """Return whether a value suits a field: settings are plain values."""
    if field in SIDES or field not in FIELDS:
        return not value.is_empty
    if isinstance(value.data, bool):
        return False
    if field in ("width", "height"):
        return isinstance(value.data, int | float)
    return isinstance(value.data, str | int | float) and value.data != ""


def _matching_inputs(node: Node, names: list[Expression]) -> list[str]:
    """Return input names; one that ends in "*" gives all with that prefix, by their numbers."""
    matching: list[str] = []
    for name in names:
        if isinstance(name, str) and name.endswith("*"):
            prefixed = [item for item in node.inputs if item.startswith(name[:-1])]
            matching.extend(sorted(prefixed, key=lambda item: (_number_in(item), item)))
        elif isinstance(name, str) and name in node.inputs:
            matching.append(name)
    return matching


def _number_in(text: str) -> int:
    digits = re.search(r"(\d{1,9})\D*\Z", text)
    return int(digits[1]) if digits else 0
