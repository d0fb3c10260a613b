"""InvokeAI's first generations: the prompt as it was typed, with switches, `"a fox [blurry]" -s50 -W512 -C7.5 -Ak_lms -S42`.

sd-parsers reads the prompt only where a switch and its value are apart, and no program that wrote
files put them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SWITCHES = {
    "s": "steps",
    "S": "seed",
    "W": "width",
    "H": "height",
    "C": "cfg_scale",
    "A": "sampler",
    "f": "strength",
    "m": "sampler",
    "sampler_name": "sampler",
    "cfg": "cfg_scale",
}
_SWITCH = re.compile(
    r"--(\w[\w-]{0,40})(?:[= ](?!-{1,2}[A-Za-z])(\S+))?|-([A-Za-z])(?: ?(?!-{1,2}[A-Za-z])(\S+))?"
)
_END_OF_PROMPT = re.compile(r'"(?=\s{1,8}--?[A-Za-z]|\s{0,8}\Z)')
_FIRST_SWITCH = re.compile(r"(?:\A|\s)--?[A-Za-z]")
_UNWANTED = re.compile(r"\[([^\[\]]{0,2000})\]")


@dataclass(frozen=True, slots=True)
class Dream:
    """`negative` is what stood in square brackets, which is how these generations wrote it."""

    prompt: str
    negative: str
    settings: dict[str, str]


def read_dream(text: str) -> Dream | None:
    """The parts of a `Dream` text; None where no prompt is in it."""
    text = text.strip()
    if text.startswith('"'):
        end = _END_OF_PROMPT.search(text, 1)
        if end is None:
            return None
        typed, switches = text[1 : end.start()].replace('\\"', '"'), text[end.end() :]
    else:
        start = _FIRST_SWITCH.search(text)
        typed, switches = (text[: start.start()], text[start.start() :]) if start else (text, "")
    prompt, negative = split_brackets(typed)
    return Dream(prompt, negative, _settings(switches)) if prompt else None


def split_brackets(typed: str) -> tuple[str, str]:
    """(prompt, negative prompt): what stands in square brackets is unwanted; the parts are joined by commas."""
    wanted, unwanted, behind = [], [], 0
    for match in _UNWANTED.finditer(typed):
        wanted.append(typed[behind : match.start()])
        unwanted.append(match[1])
        behind = match.end()
    return _joined([*wanted, typed[behind:]]), _joined(unwanted)


def _joined(parts: list[str]) -> str:
    return ", ".join(part for part in (part.strip(" ,\n") for part in parts) if part)


def _settings(switches: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for long, long_value, short, short_value in _SWITCH.findall(switches):
        name, value = long or short, long_value or short_value
        if value:
            found.setdefault(_SWITCHES.get(name, name), value)
    return found
