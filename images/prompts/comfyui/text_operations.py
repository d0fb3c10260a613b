"""What ComfyUI's nodes do with texts and numbers; `nodes.toml` names these operations.

Each takes what its inputs hold (None where nothing does) and returns what the node returns. The
file comes from a stranger: lengths are bounded before a text is built, and regular expressions run
with a time limit (`regex`, because `re` has none).
"""

from __future__ import annotations

import ast
import operator
import random
from collections.abc import Callable, Mapping
from re import IGNORECASE
from re import compile as compiled

import regex

MAX_TEXT = 1 << 20
"""Characters of one computed text; a prompt has a few thousand."""

_MAX_PATTERN = 1_000
_MAX_SUM = 200
"""Characters of an expression that a chooser's number is computed by."""
_MAX_SEARCHED = 20_000
_PATTERN_SECONDS = 0.02
# {a|b} and __name__: braces with a bar between them, however nested, in linear time.
_RANDOM = compiled(r"[{}][^{}|]*\||__[\w.+/*\\-]{1,200}__")
_LORA = compiled(r"<(?:lora|lyco|hypernet):[^<>]{0,500}>")
_DIMENSIONS = compiled(r"(\d{2,5})\s{0,3}[x\u00d7*]\s{0,3}(\d{2,5})")
_RULE = compiled(r"(?:---|[-*=~]{4,1000})\n")
_TOKENS = compiled(r"\[(time|hostname|cuda_device|cuda_name|user|date)\b", IGNORECASE)
_OFF = frozenset({"", "0", "false", "no", "off", "disable", "disabled", "none"})


class NotComputed(Exception):
    """The node's result is not in the file; `text` is what stands there instead."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.reason, self.text = reason, text


def as_text(data: object) -> str:
    """Return what a text input receives: numbers as Python writes them, several texts by ", "."""
    if isinstance(data, tuple | list):
        return ", ".join(as_text(item) for item in data[:1000])
    return "" if data is None or isinstance(data, dict) else str(data)


def is_on(data: object) -> bool:
    """Return whether a switch is on; some nodes spell their truth values."""
    return data.strip().lower() not in _OFF if isinstance(data, str) else bool(data)


def as_number(data: object) -> int | float:
    """Return a number, also where a text spells it; 0 where there is none."""
    if isinstance(data, int | float):
        return data
    try:
        return float(as_text(data)) if len(as_text(data)) < 40 else 0
    except ValueError:
        return 0


def as_int(data: object) -> int:
    """Return a whole number, cut as `int` cuts it; 0 where there is none."""
    number = as_number(data)
    return int(number) if abs(number) < 1 << 63 else 0


def _join(delimiter: object, *parts: object) -> str:
    """Join all parts, the empty ones too."""
    return _bounded_join(as_text(delimiter), [as_text(part) for part in parts])


def _join_filled(delimiter: object, clean: object, *parts: object) -> str:
    r"""Join what is not empty; a delimiter of backslash and n is a line end."""
    texts = [as_text(part).strip() if is_on(clean) else as_text(part) for part in parts]
    return _bounded_join(_unescaped(delimiter), [text for text in texts if text])


def _join_first(delimiter: object, first: object, *others: object) -> str:
    """Join the first part and what is not empty behind it."""
    texts = [as_text(first), *(text for other in others if (text := as_text(other)))]
    return _bounded_join(as_text(delimiter), texts)


def _unescaped(delimiter: object) -> str:
    text = as_text(delimiter)
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _bounded_join(glue: str, texts: list[str]) -> str:
    if sum(map(len, texts)) + len(glue) * len(texts) > MAX_TEXT:
        raise NotComputed("the text is too long")
    return glue.join(texts)


def _replace(text: object, find: object, new: object) -> str:
    whole, sought, put = as_text(text), as_text(find), as_text(new)
    if len(whole) + whole.count(sought) * len(put) > MAX_TEXT:
        raise NotComputed("the text is too long", whole)
    return whole.replace(sought, put)


def _replace_until_gone(text: object, find: object, new: object) -> str:
    """Replace until nothing is found, as WAS's node does; what would not end is not computed."""
    whole, sought = as_text(text), as_text(find)
    result = _replace(whole, sought, new) if sought else whole
    if sought and sought in result:
        raise NotComputed("its replacements do not end", whole)
    return result


def _flags(ignore_case: object, multiline: object, dotall: object) -> int:
    chosen = ((ignore_case, regex.IGNORECASE), (multiline, regex.MULTILINE), (dotall, regex.DOTALL))
    return sum(int(flag) for on, flag in chosen if is_on(on))


def _pattern(text: str, pattern: object, flags: int = 0) -> regex.Pattern[str]:
    if len(text) > _MAX_SEARCHED or len(as_text(pattern)) > _MAX_PATTERN:
        raise NotComputed("its pattern or text is too long", text)
    try:
        return regex.compile(as_text(pattern), flags)
    except (regex.error, RecursionError, OverflowError) as error:
        raise NotComputed("its pattern is not understood", text) from error


def _regex(
    text: object,
    pattern: object,
    new: object,
    ignore_case: object = False,
    multiline: object = False,
    dotall: object = False,
    count: object = 0,
) -> str:
    """Replace by a regular expression; without flags it minds the case, as `re.sub` does."""
    whole, put = as_text(text), as_text(new)
    if len(put) > _MAX_PATTERN:
        raise NotComputed("its replacement is too long", whole)
    sought = _pattern(whole, pattern, _flags(ignore_case, multiline, dotall))
    left = MAX_TEXT

    def expanded(match: regex.Match[str]) -> str:
        nonlocal left
        result: str = match.expand(put)
        left -= len(result)
        if left < 0:
            raise NotComputed("the text is too long", whole)
        return result

    try:
        most = max(0, as_int(count))
        result: str = sought.sub(expanded, whole, count=most, timeout=_PATTERN_SECONDS)
    except (TimeoutError, regex.error, IndexError) as error:
        raise NotComputed("its pattern is not followed to the end", whole) from error
    return result


def _core_regex(text: object, pattern: object, new: object, *options: object) -> str:
    """Core's node ignores the case where nothing else is said."""
    ignore_case, *others = options
    return _regex(text, pattern, new, True if ignore_case is None else ignore_case, *others)


def _regex_extract(
    text: object,
    pattern: object,
    mode: object,
    ignore_case: object,
    multiline: object,
    dotall: object,
    group: object,
) -> str:
    whole, number = as_text(text), 1 if group is None else as_int(group)
    flags = _flags(True if ignore_case is None else ignore_case, multiline, dotall)
    sought, named = _pattern(whole, pattern, flags), as_text(mode)
    if "Group" not in named:
        number = 0
    elif not 0 <= number <= sought.groups:
        return ""
    found: list[str] = []
    try:
        for match in sought.finditer(whole, timeout=_PATTERN_SECONDS):
            # findall gives the first group, where there is one.
            wanted = min(1, sought.groups) if named == "All Matches" else number
            found.append(match[wanted] or "")
            if named.startswith("First"):
                break
    except TimeoutError as error:
        raise NotComputed("its pattern is not followed to the end", whole) from error
    return _bounded_join("\n", found)


_CASES: Mapping[str, Callable[[str], str]] = {
    "uppercase": str.upper,
    "upper": str.upper,
    "lowercase": str.lower,
    "lower": str.lower,
    "capitalize": str.capitalize,
    "title case": str.title,
    "title": str.title,
    "invert_case": str.swapcase,
    "reverse": lambda text: text[::-1],
    "trim": str.strip,
    "remove_spaces": lambda text: text.replace(" ", ""),
    "both": str.strip,
    "left": str.lstrip,
    "right": str.rstrip,
}


def _case(text: object, mode: object) -> str:
    change = _CASES.get(as_text(mode).lower())
    return as_text(text) if change is None else change(as_text(text))


def _slice(text: object, start: object, end: object) -> str:
    return as_text(text)[as_int(start) : None if end is None else as_int(end)]


def _string_function(action: object, tidy: object, *parts: object) -> str:
    """pysssss's String Function: append or replace, with commas and blanks tidied up or not."""
    first, second, third = (as_text(part) for part in parts)
    if action == "append":
        texts = [text for text in (first, second, third) if text]
        result = _bounded_join(", " if is_on(tidy) else "", texts)
    elif len(second) > 1 and second.startswith("/") and second.endswith("/"):
        result = _regex(first, second[1:-1], third)
    else:
        result = _replace(first, second, third)
    if not is_on(tidy):
        return result
    blanks = _regex(result, r"\s{2,}", " ").replace(" ,", ",")
    return _regex(blanks, ",{2,}", ",").strip()


def _lines(text: object, start: object, count: object, drop_empty: object) -> str:
    """Return one line of several, counted from 0; several lines make several pictures."""
    rows = as_text(text).split("\n")
    if drop_empty is None or is_on(drop_empty):
        rows = [row for row in rows if row.strip()]
    first = max(0, min(as_int(start), len(rows) - 1))
    taken = rows[first : first + (1000 if count is None else max(1, as_int(count)))]
    if len(taken) > 1:
        raise NotComputed("each line makes a picture of its own", "\n".join(taken))
    return "".join(taken)


def _line(text: object, index: object, mode: object) -> str:
    """Return the line with that number, counted from 0; other modes count the runs."""
    rows = as_text(text).strip().split("\n")
    if mode is not None and mode != "index":
        raise NotComputed("takes another line in every run", as_text(text))
    place = as_int(index)
    return rows[place] if 0 <= place < len(rows) else ""


def _select_string(text: object, multiline: object, select: object) -> str:
    """Impact's String Selector: a line, or a block that begins with "#"."""
    whole = as_text(text)
    blocks = whole.split("\n")
    if is_on(multiline):
        blocks = [block.strip() for block in regex.split(r"(?m)^(?=#)", whole) if block.strip()]
    chosen = blocks[as_int(select) % len(blocks)] if blocks else whole
    return chosen[1:] if is_on(multiline) and chosen.startswith("#") else chosen


def _random_line(text: object, seed: object) -> str:
    """WAS's Text Random Line: Python's own generator, whose seed is recorded."""
    rows = as_text(text).split("\n")
    if not isinstance(seed, int):
        raise NotComputed("a random choice that was not recorded", as_text(text))
    return random.Random(seed).choice(rows)  # noqa: S311 -- repeats what the node did


def _split(text: object, delimiter: object, number: object) -> str:
    glue = as_text(delimiter)
    parts = as_text(text).split(glue) if glue else [as_text(text)]
    return parts[as_int(number)].strip() if as_int(number) < min(4, len(parts)) else ""


def _without_loras(text: object) -> str:
    return _LORA.sub("", as_text(text))


def _without_comments(text: object) -> str:
    """WAS's Text Multiline: rows that begin with "#" go, tokens such as [time] are filled in."""
    if _TOKENS.search(as_text(text)):
        raise NotComputed("fills in the time or the machine's name", as_text(text))
    rows = (row for row in as_text(text).split("\n") if not row.strip().startswith("#"))
    return "\n".join(rows)


def _without_line_ends(text: object, on: object) -> str:
    return as_text(text).replace("\n", "").strip() if is_on(on) else as_text(text)


def _drawn(text: object) -> str:
    """Return a text that is no template any more; what a template became is not in the file."""
    whole = as_text(text)
    if _RANDOM.search(whole):
        raise NotComputed("a random choice that was not recorded", whole)
    return whole


def _populated(populated: object, template: object, mode: object) -> str:
    """Return the text that a wildcard node filled in; "fixed" takes it as it stands, empty too."""
    whole = as_text(populated)
    if not whole and as_text(template) and (mode is None or mode in ("populate", True)):
        return _drawn(template)
    return _drawn(whole)


def _schedule(text: object, before: object, behind: object) -> str:
    """FizzNodes' schedule of prompts by frame: `"0": "a fox", "12": "a hen"`."""
    found = regex.findall(r'"\d{1,9}"\s*:\s*"([^"]*)"', as_text(text)[:_MAX_SEARCHED])
    texts = [text for key in dict.fromkeys(found) if (text := key.strip())] or [as_text(text)]
    parts = [as_text(before), ", ".join(texts), as_text(behind)]
    raise NotComputed("changes from frame to frame", " ".join(part for part in parts if part))


def _only(*parts: object) -> str:
    """Return the one text that a list of texts has; several make several pictures."""
    texts = [text for part in parts if (text := as_text(part)).strip()]
    if len(texts) > 1:
        raise NotComputed("makes several pictures of several texts", _bounded_join(", ", texts))
    return "".join(texts)


def _sections(text: object) -> str:
    """Return a text; rows of three dashes and more part several texts for several pictures."""
    return _only(*(part.strip() for part in _RULE.split(as_text(text))))


def _join_lines(text: object, delimiter: object) -> str:
    rows = (row.strip() for row in as_text(text).split("\n"))
    return _bounded_join(as_text(delimiter), [row for row in rows if row])


def _fill(text: object, *parts: object) -> str:
    """Put the parts for [1], [2] …, one after the other."""
    whole = as_text(text)
    for number, part in enumerate(parts[:100], 1):
        whole = _replace(whole, f"[{number}]", part)
    return whole


def _trigger_words(listed: object) -> str:
    """LoRA Manager's toggled words; the node joins the active ones."""
    rows = listed if isinstance(listed, list) else []
    active = [row for row in rows if isinstance(row, dict) and row.get("active")]
    words = (as_text(row.get("text")) for row in active)
    return ", ".join(word for word in words if word)


def _dimension(menu: object, place: object, otherwise: object = None) -> object:
    """The width (0) or height (1) in a menu's "1024 x 768 (landscape)", or else what was typed."""
    sides = _DIMENSIONS.search(as_text(menu)[:200])
    return int(sides[1 + as_int(place)]) if sides else otherwise


def _prepend(words: object, text: object) -> str:
    return _bounded_join(", ", [part for part in (as_text(words), as_text(text)) if part])


_COMPARED: Mapping[str, Callable[[object, object], bool]] = {
    "==": operator.eq,
    "=": operator.eq,
    "a = b": operator.eq,
    "a == b": operator.eq,
    "Equal": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "a <> b": operator.ne,
    "a != b": operator.ne,
    "<": lambda a, b: as_number(a) < as_number(b),
    "a < b": lambda a, b: as_number(a) < as_number(b),
    ">": lambda a, b: as_number(a) > as_number(b),
    "a > b": lambda a, b: as_number(a) > as_number(b),
    "<=": lambda a, b: as_number(a) <= as_number(b),
    "a <= b": lambda a, b: as_number(a) <= as_number(b),
    ">=": lambda a, b: as_number(a) >= as_number(b),
    "a >= b": lambda a, b: as_number(a) >= as_number(b),
    "Starts With": lambda a, b: as_text(a).startswith(as_text(b)),
    "Ends With": lambda a, b: as_text(a).endswith(as_text(b)),
    "contains": lambda a, b: as_text(b) in as_text(a),
    "tt": lambda _a, _b: True,
    "ff": lambda _a, _b: False,
}


def _compare(left: object, how: object, right: object, minds_case: object = None) -> bool:
    compared = _COMPARED.get(as_text(how))
    if compared is None:
        raise NotComputed(f"its comparison {as_text(how)[:20]!r} is not known")
    if minds_case is not None and not is_on(minds_case):
        left, right = as_text(left).lower(), as_text(right).lower()
    return compared(left, right)


_LOGIC: Mapping[str, Callable[[bool, bool], bool]] = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}


def _logic(how: object, left: object, right: object) -> bool:
    combined = _LOGIC.get(as_text(how).lower())
    if combined is None:
        raise NotComputed(f"its operation {as_text(how)[:20]!r} is not known")
    return combined(is_on(left), is_on(right))


_SUMS: Mapping[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "min": min,
    "max": max,
}


def _math(left: object, how: object, right: object) -> int | float:
    """Add, subtract, multiply: the sums that choosers are fed with."""
    summed = _SUMS.get(as_text(how).lower())
    if summed is None:
        raise NotComputed(f"its operation {as_text(how)[:20]!r} is not known")
    return summed(as_number(left), as_number(right))


_ARITHMETIC: Mapping[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def _calculate(expression: object, *values: object) -> int | float:
    """Compute a sum of numbers and of the inputs a, b, c …; other functions are not computed."""
    names = dict(zip("abcdefgh", values, strict=False))
    text = as_text(expression).strip()
    if len(text) > _MAX_SUM:
        raise NotComputed("its expression is too long")
    try:
        return _sum_of(ast.parse(text, mode="eval").body, names)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise NotComputed("its expression is not computed here") from error


def _sum_of(tree: ast.expr, names: Mapping[str, object]) -> int | float:
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int | float):
        return tree.value
    if isinstance(tree, ast.Name) and isinstance(value := names.get(tree.id), int | float):
        return value
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_sum_of(tree.operand, names)
    if isinstance(tree, ast.BinOp) and (summed := _ARITHMETIC.get(type(tree.op))):
        return summed(_sum_of(tree.left, names), _sum_of(tree.right, names))
    raise ValueError(type(tree).__name__)


OPERATIONS: Mapping[str, Callable[..., object]] = {
    "join": _join,
    "join_filled": _join_filled,
    "join_first": _join_first,
    "replace": _replace,
    "replace_until_gone": _replace_until_gone,
    "regex": _regex,
    "core_regex": _core_regex,
    "regex_extract": _regex_extract,
    "case": _case,
    "slice": _slice,
    "string_function": _string_function,
    "lines": _lines,
    "line": _line,
    "select_string": _select_string,
    "split": _split,
    "random_line": _random_line,
    "without_loras": _without_loras,
    "without_comments": _without_comments,
    "without_line_ends": _without_line_ends,
    "drawn": _drawn,
    "populated": _populated,
    "schedule": _schedule,
    "only": _only,
    "sections": _sections,
    "join_lines": _join_lines,
    "fill": _fill,
    "calculate": _calculate,
    "round": lambda data: round(as_number(data)),
    "trigger_words": _trigger_words,
    "prepend": _prepend,
    "dimension": _dimension,
    "text": as_text,
    "int": as_int,
    "float": lambda data: float(as_number(data)),
    "on": is_on,
    "not": lambda data: not is_on(data),
    "all_on": lambda *data: all(map(is_on, data)),
    "any_on": lambda *data: any(map(is_on, data)),
    "length": lambda data: len(as_text(data)),
    "compare": _compare,
    "logic": _logic,
    "math": _math,
}
"""Every operation that `nodes.toml` may name, besides those of `imprompt.images.prompts.comfyui.node_values`."""
