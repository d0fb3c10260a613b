"""The operations of ComfyUI's nodes on texts and numbers, by their names in `nodes.toml`.

Each takes the values of its inputs (None for a missing one) and returns what the node returns.
Files are untrusted: lengths are checked before a text is built, and regular expressions run with a
time limit (`regex`, because `re` has none).
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
"""Characters of an arithmetic expression, such as one that computes the number of a choice."""
_MAX_SEARCHED = 20_000
_PATTERN_SECONDS = 0.02
# {a|b} and __name__: braces around a bar, nested to any depth, in linear time.
_RANDOM = compiled(r"[{}][^{}|]*\||__[\w.+/*\\-]{1,200}__")
_LORA = compiled(r"<(?:lora|lyco|hypernet):[^<>]{0,500}>")
_DIMENSIONS = compiled(r"(\d{2,5})\s{0,3}[x\u00d7*]\s{0,3}(\d{2,5})")
_RULE = compiled(r"(?:---|[-*=~]{4,1000})\n")
_TOKENS = compiled(r"\[(time|hostname|cuda_device|cuda_name|user|date)\b", IGNORECASE)
_OFF = frozenset({"", "0", "false", "no", "off", "disable", "disabled", "none"})


class NotComputed(Exception):
    """The node's result is not in the file; `text` is what the file has instead."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.reason, self.text = reason, text


def as_text(data: object) -> str:
    """Return a value as text: numbers as Python writes them, several texts joined by ", "."""
    if isinstance(data, tuple | list):
        return ", ".join(as_text(item) for item in data[:1000])
    return "" if data is None or isinstance(data, dict) else str(data)


def is_on(data: object) -> bool:
    """Return whether a switch is on; some nodes write truth values as words."""
    return data.strip().lower() not in _OFF if isinstance(data, str) else bool(data)


def as_number(data: object) -> int | float:
    """Return a number, also of a text that spells one; 0 without one."""
    if isinstance(data, int | float):
        return data
    try:
        return float(as_text(data)) if len(as_text(data)) < 40 else 0
    except ValueError:
        return 0


def as_int(data: object) -> int:
    """Return a number truncated to an integer; 0 without one."""
    number = as_number(data)
    return int(number) if abs(number) < 1 << 63 else 0


def _join(delimiter: object, *parts: object) -> str:
    """Join all parts, including empty ones."""
    return _bounded_join(as_text(delimiter), [as_text(part) for part in parts])


def _join_filled(delimiter: object, clean: object, *parts: object) -> str:
    r"""Join the parts that are not empty; the delimiter `\n` means a line end."""
    texts = [as_text(part).strip() if is_on(clean) else as_text(part) for part in parts]
    return _bounded_join(_unescaped(delimiter), [text for text in texts if text])


def _join_first(delimiter: object, first: object, *others: object) -> str:
    """Join the first part and those after it that are not empty."""
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
    whole, search, replacement = as_text(text), as_text(find), as_text(new)
    if len(whole) + whole.count(search) * len(replacement) > MAX_TEXT:
        raise NotComputed("the text is too long", whole)
    return whole.replace(search, replacement)


def _replace_until_gone(text: object, find: object, new: object) -> str:
    """Replace until nothing matches, as WAS's node does, unless that would never end."""
    whole, search = as_text(text), as_text(find)
    result = _replace(whole, search, new) if search else whole
    if search and search in result:
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
    """Replace by a regular expression; case-sensitive without flags, as `re.sub` is."""
    whole, replacement = as_text(text), as_text(new)
    if len(replacement) > _MAX_PATTERN:
        raise NotComputed("its replacement is too long", whole)
    search = _pattern(whole, pattern, _flags(ignore_case, multiline, dotall))
    left = MAX_TEXT

    def expanded(match: regex.Match[str]) -> str:
        nonlocal left
        result: str = match.expand(replacement)
        left -= len(result)
        if left < 0:
            raise NotComputed("the text is too long", whole)
        return result

    try:
        most = max(0, as_int(count))
        result: str = search.sub(expanded, whole, count=most, timeout=_PATTERN_SECONDS)
    except (TimeoutError, regex.error, IndexError) as error:
        raise NotComputed("its pattern takes too long", whole) from error
    return result


def _core_regex(text: object, pattern: object, new: object, *options: object) -> str:
    """Replace as ComfyUI's node does, which ignores case by default."""
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
    search, mode_name = _pattern(whole, pattern, flags), as_text(mode)
    if "Group" not in mode_name:
        number = 0
    elif not 0 <= number <= search.groups:
        return ""
    matches: list[str] = []
    try:
        for match in search.finditer(whole, timeout=_PATTERN_SECONDS):
            # findall returns the first group if there is one.
            wanted = min(1, search.groups) if mode_name == "All Matches" else number
            matches.append(match[wanted] or "")
            if mode_name.startswith("First"):
                break
    except TimeoutError as error:
        raise NotComputed("its pattern takes too long", whole) from error
    return _bounded_join("\n", matches)


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
    """Append or replace as pysssss's String Function does; `tidy` cleans commas and spaces."""
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
    """Return the line with that number, counted from 0; other modes count runs."""
    rows = as_text(text).strip().split("\n")
    if mode is not None and mode != "index":
        raise NotComputed("takes another line in every run", as_text(text))
    place = as_int(index)
    return rows[place] if 0 <= place < len(rows) else ""


def _select_string(text: object, multiline: object, select: object) -> str:
    """Return a line or a block that begins with "#", as Impact's String Selector does."""
    whole = as_text(text)
    blocks = whole.split("\n")
    if is_on(multiline):
        blocks = [block.strip() for block in regex.split(r"(?m)^(?=#)", whole) if block.strip()]
    chosen = blocks[as_int(select) % len(blocks)] if blocks else whole
    return chosen[1:] if is_on(multiline) and chosen.startswith("#") else chosen


def _random_line(text: object, seed: object) -> str:
    """Return the line of WAS's Text Random Line, which uses Python's generator and a known seed."""
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
    """Remove comment lines as WAS's Text Multiline does, which also fills in tokens like [time]."""
    if _TOKENS.search(as_text(text)):
        raise NotComputed("fills in the time or the machine's name", as_text(text))
    rows = (row for row in as_text(text).split("\n") if not row.strip().startswith("#"))
    return "\n".join(rows)


def _without_line_ends(text: object, on: object) -> str:
    return as_text(text).replace("\n", "").strip() if is_on(on) else as_text(text)


def _drawn(text: object) -> str:
    """Return a text without random choices; their outcome is not in the file."""
    whole = as_text(text)
    if _RANDOM.search(whole):
        raise NotComputed("a random choice that was not recorded", whole)
    return whole


def _populated(populated: object, template: object, mode: object) -> str:
    """Return the text that a wildcard node filled in; mode "fixed" keeps even an empty one."""
    whole = as_text(populated)
    if not whole and as_text(template) and (mode is None or mode in ("populate", True)):
        return _drawn(template)
    return _drawn(whole)


def _schedule(text: object, prefix: object, suffix: object) -> str:
    """Raise with the texts of FizzNodes' schedule by frame: `"0": "a fox", "12": "a hen"`."""
    frames = regex.findall(r'"\d{1,9}"\s*:\s*"([^"]*)"', as_text(text)[:_MAX_SEARCHED])
    texts = [text for key in dict.fromkeys(frames) if (text := key.strip())] or [as_text(text)]
    parts = [as_text(prefix), ", ".join(texts), as_text(suffix)]
    raise NotComputed("changes from frame to frame", " ".join(part for part in parts if part))


def _only(*parts: object) -> str:
    """Return the only text of a list; several make several pictures."""
    texts = [text for part in parts if (text := as_text(part)).strip()]
    if len(texts) > 1:
        raise NotComputed("makes several pictures of several texts", _bounded_join(", ", texts))
    return "".join(texts)


def _sections(text: object) -> str:
    """Return the only section of a text; rows of dashes separate the texts of several pictures."""
    return _only(*(part.strip() for part in _RULE.split(as_text(text))))


def _join_lines(text: object, delimiter: object) -> str:
    rows = (row.strip() for row in as_text(text).split("\n"))
    return _bounded_join(as_text(delimiter), [row for row in rows if row])


def _fill(text: object, *parts: object) -> str:
    """Replace [1], [2] … by the parts, one after another."""
    whole = as_text(text)
    for number, part in enumerate(parts[:100], 1):
        whole = _replace(whole, f"[{number}]", part)
    return whole


def _trigger_words(listed: object) -> str:
    """Join the active words of LoRA Manager's toggle list."""
    rows = listed if isinstance(listed, list) else []
    active = [row for row in rows if isinstance(row, dict) and row.get("active")]
    words = (as_text(row.get("text")) for row in active)
    return ", ".join(word for word in words if word)


def _dimension(menu: object, side: object, default: object = None) -> object:
    """Return the width (0) or height (1) in a menu's "1024 x 768 (landscape)", else the default."""
    sides = _DIMENSIONS.search(as_text(menu)[:200])
    return int(sides[1 + as_int(side)]) if sides else default


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


def _compare(left: object, how: object, right: object, case_sensitive: object = None) -> bool:
    compared = _COMPARED.get(as_text(how))
    if compared is None:
        raise NotComputed(f"its comparison {as_text(how)[:20]!r} is not known")
    if case_sensitive is not None and not is_on(case_sensitive):
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
    """Compute one arithmetic operation, such as for the number of a choice."""
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
    """Compute arithmetic on numbers and the inputs a, b, c …; functions are not computed."""
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
"""All operations that `nodes.toml` may name; `node_values` handles further expressions."""
