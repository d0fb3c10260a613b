"""InvokeAI 1's text: the typed prompt with switches, `"a fox [blurry]" -s50 -W512 -C7.5 -S42`.

sd-parsers reads the prompt only where a switch and its value are apart, and no program that wrote
files put them apart.
"""

from __future__ import annotations

import re

from imprompt.images.prompts.prompt_parts import PromptParts

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


def read_dream(text: str) -> PromptParts | None:
    """Return the parts of a `Dream` text; None without a prompt."""
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
    return PromptParts(prompt, negative, _settings(switches)) if prompt else None


def split_brackets(typed: str) -> tuple[str, str]:
    """Return prompt and negative prompt; the latter is typed in square brackets."""
    wanted, unwanted, end = [], [], 0
    for match in _UNWANTED.finditer(typed):
        wanted.append(typed[end : match.start()])
        unwanted.append(match[1])
        end = match.end()
    return _joined([*wanted, typed[end:]]), _joined(unwanted)


def _joined(parts: list[str]) -> str:
    return ", ".join(part for part in (part.strip(" ,\n") for part in parts) if part)


def _settings(switches: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for long, long_value, short, short_value in _SWITCH.findall(switches):
        name, value = long or short, long_value or short_value
        if value:
            settings.setdefault(_SWITCHES.get(name, name), value)
    return settings
