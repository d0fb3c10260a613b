"""The values in a ComfyUI graph, computed as the graph computes them.

A value is asked for by (node, output slot, wanted), where `wanted` says which field of a pipe is
meant. Each is computed once. The rules come from `nodes.toml`; a node that is not in it is guessed
at by the names of its inputs, and whatever passes through such a guess carries a doubt.
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

Wanted = tuple[str, int, str]
Steps = Generator[Wanted, "Value", "Value"]

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
"""The inputs under which nodes keep what a sampler needs, the likeliest first."""

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
"""Where a node that shows a text keeps it, perhaps from an earlier run."""

_COUNT = "inputcount"
"""Says how many of the numbered inputs count; links into more may be left over."""

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
    """What an output holds: a text, a number, a list, or (as a tuple) the texts of a conditioning.

    `data` is None where nothing is there. `doubt` names the node, and why, that keeps `data` from
    being certain; it is empty where everything was computed.
    """

    data: object = None
    doubt: str = ""


NOTHING = Value()


class Values:
    """The values of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._kinds = node_kinds()
        self._known: dict[Wanted, Value] = {}
        self._regexes = _MAX_REGEXES
        self._characters = _MAX_COMPUTED

    def kind_of(self, node: Node) -> NodeKind | None:
        """Return the table's line for a node."""
        return self._kinds.get(node.kind)

    def field(self, key: str, wanted: str) -> Value:
        """Return what a node itself is given as `wanted`, one of `FIELDS`."""
        return self._run((key, -1, wanted))

    def input(self, key: str, name: str, wanted: str = "text") -> Value:
        """Return what stands at an input of a node."""
        item = self._graph[key].inputs.get(name)
        if not isinstance(item, Link):
            return Value(item)
        return self._run((item.node, item.slot, wanted)) if item.node in self._graph else NOTHING

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
            if _is_open(node, expression[1], test):
                return _branches(node, str(expression[2]))
            return [self._picked(str(expression[2]), test)]
        if head == "first":
            names = _matching(node, expression[1:])
            return [name for name in names if self._is_there(node, name)][:1]
        return None

    def _is_there(self, node: Node, name: str) -> bool:
        item = node.inputs.get(name)
        return item.node in self._graph if isinstance(item, Link) else item is not None

    def _evaluate(self, node: Node, expression: Expression) -> Value:
        """Run an expression from outside of a computation."""
        steps = self._expression(node, expression, "text")
        try:
            asked = next(steps)
            while True:
                asked = steps.send(self._run(asked))
        except StopIteration as end:
            return end.value if isinstance(end.value, Value) else NOTHING

    def _run(self, wanted: Wanted) -> Value:
        """Compute a value with a stack of its own: graphs may be deeper than Python's."""
        if wanted in self._known:
            return self._known[wanted]
        stack = [(wanted, self._steps(wanted))]
        busy = {wanted}
        answer = NOTHING
        begun = False
        while stack:
            current, steps = stack[-1]
            try:
                asked = steps.send(answer) if begun else next(steps)
            except StopIteration as end:
                stack.pop()
                busy.discard(current)
                answer, begun = end.value, True
                self._known[current] = answer
                continue
            begun = True
            if asked in self._known:
                answer = self._known[asked]
            elif asked in busy:
                answer = Value(None, f"{self._graph[asked[0]].kind}: the graph runs in a circle")
            else:
                busy.add(asked)
                stack.append((asked, self._steps(asked)))
                begun = False
        return self._known[wanted]

    def _steps(self, wanted: Wanted) -> Steps:
        key, slot, name = wanted
        node = self._graph[key]
        kind = self.kind_of(node)
        if slot == -1:
            return (yield from self._field(node, name))
        if kind is None or not kind.out:
            if kind is not None or name in _SETTINGS:
                return (yield from self._field(node, name))
            return (yield from self._guess(node, name))
        if slot >= len(kind.out):
            return (yield from self._guess(node, name))
        value = yield from self._expression(node, kind.out[slot], name)
        if value.data is None and not value.doubt and name in _SETTINGS:
            return (yield from self._field(node, name))
        return value

    def _expression(self, node: Node, expression: Expression, wanted: str) -> Steps:
        if isinstance(expression, str):
            return (yield from self._leaf(node, expression, wanted))
        head, *parts = expression
        if head in _SPECIAL:
            return (yield from _SPECIAL[str(head)](self, node, parts, wanted))
        return (yield from self._operation(node, str(head), parts))

    def _leaf(self, node: Node, name: str, wanted: str) -> Steps:
        if name.startswith("="):
            return Value(name[1:])
        if name.startswith("@"):
            return (yield from self._field(node, name[1:] or wanted))
        return (yield from self._input(node, name, wanted))

    def _input(self, node: Node, name: str, wanted: str) -> Steps:
        item = node.inputs.get(name)
        if not isinstance(item, Link):
            return Value(item)
        if item.node not in self._graph:
            return NOTHING
        return (yield item.node, item.slot, wanted)

    def _operation(self, node: Node, head: str, parts: list[Expression]) -> Steps:
        data, doubt = [], ""
        count = yield from self._input(node, _COUNT, "text")
        for part in self._spread(node, parts, count):
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
    def _spread(node: Node, parts: list[Expression], count: Value) -> list[Expression]:
        """Names with a "*" stand for all inputs that begin so, as many as the node counts."""
        spread: list[Expression] = []
        most = as_int(count.data)
        for part in parts:
            is_pattern = isinstance(part, str) and part.endswith("*") and not part.startswith("=")
            names = _matching(node, [part]) if is_pattern else [part]
            spread.extend(n for n in names if not (is_pattern and 0 < most < _last_number(str(n))))
        return spread

    def _encode(self, node: Node, parts: list[Expression], _wanted: str) -> Steps:
        """A conditioning of the texts, equal ones once."""
        return (yield from self._gather(node, parts, "text"))

    def _all(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        """A conditioning of several."""
        return (yield from self._gather(node, parts, wanted))

    def _gather(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        texts: dict[str, None] = {}
        doubt = ""
        count = yield from self._input(node, _COUNT, "text")
        for part in self._spread(node, parts, count):
            value = yield from self._expression(node, part, wanted)
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

    def _none(self, _node: Node, _parts: list[Expression], _wanted: str) -> Steps:
        """A conditioning that was zeroed."""
        return Value(())
        yield  # a generator like the others

    def _if(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        test = yield from self._expression(node, parts[0], "text")
        if test.data is None and not test.doubt and parts[0] in node.links:
            test = replace(test, doubt=f"{node.kind}: its switch is not in the file")
        value = yield from self._expression(node, parts[1 if is_on(test.data) else 2], wanted)
        return replace(value, doubt=value.doubt or test.doubt)

    def _pick(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        test = yield from self._expression(node, parts[0], "text")
        if _is_open(node, parts[0], test):
            return (yield from self._any_of(node, _branches(node, str(parts[1])), test, wanted))
        value = yield from self._input(node, self._picked(str(parts[1]), test), wanted)
        return replace(value, doubt=value.doubt or test.doubt)

    def _any_of(self, node: Node, names: list[str], test: Value, wanted: str) -> Steps:
        """The texts of all branches, where the number of the chosen one is not in the file."""
        doubt = test.doubt or f"{node.kind}: its switch is not in the file"
        texts: dict[str, None] = {}
        for name in names[:_MAX_PARTS] if wanted not in _SETTINGS else ():
            value = yield from self._input(node, name, wanted)
            held = value.data if isinstance(value.data, tuple) else (value.data,)
            filled = [item for item in held if isinstance(item, str) and item.strip()]
            texts.update(dict.fromkeys(filled))
        whole = ", ".join(texts)[:MAX_TEXT]
        self._characters -= len(whole)
        if self._characters < 0:
            return Value(None, f"{node.kind}: {_TOO_MUCH}")
        return Value(whole or None, doubt)

    @staticmethod
    def _picked(pattern: str, test: Value) -> str:
        """The input whose number was chosen; "{}" is the number as it is, "{1}" counted from 1."""
        number = as_int(test.data) if not isinstance(test.data, str) else _last_number(test.data)
        return pattern.replace("{}", str(number)).replace("{1}", str(number + 1))

    def _first(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        """The first that is there: a link into a muted branch holds nothing."""
        for name in _matching(node, parts):
            value = yield from self._input(node, name, wanted)
            if value.data is not None or value.doubt:
                return value
        return NOTHING

    def _or(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        """The first, or where its text is not known what stands in the file for it."""
        value = yield from self._expression(node, parts[0], wanted)
        if value.data is not None or not value.doubt:
            return value
        shown = yield from self._expression(node, parts[1], wanted)
        return replace(shown, doubt=value.doubt)

    def _other_field(self, node: Node, parts: list[Expression], _wanted: str) -> Steps:
        """A field, by its name, of the pipe that an expression gives."""
        return (yield from self._expression(node, parts[1], str(parts[0])))

    def _doubt(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        """What the node does to the text is not in the file."""
        reason = f"{node.kind}: {_REASONS[str(parts[0])]}"
        value = NOTHING
        if len(parts) > 1:
            value = yield from self._expression(node, parts[1], wanted)
        return Value(value.data, value.doubt or reason)

    def _merged(self, node: Node, parts: list[Expression], wanted: str) -> Steps:
        """A field of several pipes: the last one that has it."""
        for name in reversed(_matching(node, parts)):
            value = yield from self._input(node, name, wanted)
            if value.data is not None or value.doubt:
                return value
        return NOTHING

    def _field(self, node: Node, wanted: str) -> Steps:
        """What the node puts into its pipe, or else what the pipe before it holds."""
        kind = self.kind_of(node)
        if kind is not None and wanted in kind.fields:
            value = yield from self._expression(node, kind.fields[wanted], wanted)
            if value.data is not None or value.doubt:
                return value
        elif kind is None or not kind.fields or wanted in _SETTINGS:
            for name in FIELDS.get(wanted, (wanted,)):
                if name not in node.inputs or (wanted in SIDES and name in _PIPES):
                    continue
                value = yield from self._input(node, name, wanted)
                if _fits(value, wanted):
                    return value
        elif wanted in node.inputs:
            value = yield from self._input(node, wanted, wanted)
            if value.data is not None or value.doubt:
                return value
        if kind is None and wanted in _SETTINGS and (plain := _only_value(node)) is not None:
            return Value(plain)
        for name in kind.base if kind is not None and kind.base else _PIPES:
            if name.endswith("*") or name in node.links:
                value = yield from self._merged(node, [name], wanted)
                if value.data is not None or value.doubt:
                    return value
        return NOTHING

    def _guess(self, node: Node, wanted: str) -> Steps:
        """The texts of a node that the table does not know, by the names of its inputs."""
        if wanted in _SETTINGS:
            return (yield from self._field(node, wanted))
        if is_model_text(node.kind, node.inputs):
            return Value(None, f"{node.kind}: {_REASONS['model']}")
        doubt = f"{node.kind}: {UNKNOWN}"
        names = yield from self._guessed_choice(node)
        texts: list[str] = []
        for name in names if names is not None else self._guessed_inputs(node, wanted):
            if name == _SHOWN_TEXT and texts:
                continue
            value = yield from self._input(node, name, wanted)
            held = value.data if isinstance(value.data, tuple) else (value.data,)
            texts.extend(text for item in held if isinstance(item, str) and (text := item).strip())
            if value.doubt and UNKNOWN not in value.doubt:
                doubt = value.doubt
        glue = next((node.inputs[n] for n in ("delimiter", "separator") if n in node.inputs), ", ")
        unique = list(dict.fromkeys(text.strip() for text in texts))[:_MAX_PARTS]
        whole = (glue if isinstance(glue, str) else ", ").join(unique)[:MAX_TEXT]
        self._characters -= len(whole)
        if self._characters < 0:
            return Value(None, f"{node.kind}: {_TOO_MUCH}")
        return Value(whole or None, doubt)

    def _guessed_inputs(self, node: Node, wanted: str) -> list[str]:
        """The inputs that may hold texts of this side."""
        other = _SIDE_NAMES["positive" if wanted == "negative" else "negative"]
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
        if not names:  # no input is named like a text: one that reads like one
            names = [name for name, item in node.inputs.items() if _is_prose(name, item)]
        mine = [name for name in names if wanted in SIDES and _SIDE_NAMES[wanted].fullmatch(name)]
        return mine or names

    def _guessed_choice(self, node: Node) -> Generator[Wanted, Value, list[str] | None]:
        """The chosen input of a node that looks like a switch; None where it does not."""
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
    "encode": Values._encode,
    "all": Values._all,
    "none": Values._none,
    "if": Values._if,
    "pick": Values._pick,
    "first": Values._first,
    "merged": Values._merged,
    "field": Values._other_field,
    "or": Values._or,
    "doubt": Values._doubt,
}


def _is_open(node: Node, selector: Expression, test: Value) -> bool:
    """Return whether the number that chooses is not in the file."""
    return bool(test.doubt) or (test.data is None and selector in node.links)


def _branches(node: Node, pattern: str) -> list[str]:
    """The inputs among which a number chooses."""
    before = pattern.partition("{")[0]
    return [name for name in _matching(node, [before + "*"]) if name[len(before) :].isdecimal()]


def _only_value(node: Node) -> object:
    """The number or text of a node that has nothing else, as constants have."""
    held = [item for item in node.inputs.values() if isinstance(item, str | int | float)]
    return held[0] if len(held) == len(node.inputs) == 1 and not isinstance(held[0], bool) else None


def _is_prose(name: str, item: object) -> bool:
    return (
        isinstance(item, str) and " " in item.strip() and not _NO_TEXT_INPUT.fullmatch(name.lower())
    )


def _fits(value: Value, wanted: str) -> bool:
    """Return whether a value can be what is wanted: settings are plain values."""
    if wanted in SIDES or wanted not in FIELDS:
        return value.data is not None or bool(value.doubt)
    if isinstance(value.data, bool):
        return False
    if wanted in ("width", "height"):
        return isinstance(value.data, int | float)
    return isinstance(value.data, str | int | float) and value.data != ""


def _matching(node: Node, names: list[Expression]) -> list[str]:
    """Input names, where one that ends in "*" stands for all that begin so, by their numbers."""
    found: list[str] = []
    for name in names:
        if not isinstance(name, str):
            continue
        if name.endswith("*"):
            found.extend(sorted((n for n in node.inputs if n.startswith(name[:-1])), key=_numbered))
        elif name in node.inputs:
            found.append(name)
    return found


def _numbered(name: str) -> tuple[int, str]:
    return _last_number(name), name


def _last_number(text: str) -> int:
    digits = re.search(r"(\d{1,9})\D*\Z", text)
    return int(digits[1]) if digits else 0
