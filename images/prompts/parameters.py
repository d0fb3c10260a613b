"""AUTOMATIC1111's text: the prompt, "Negative prompt: …", and a last line of settings. Forge, SD.Next and many others write it.

sd-parsers is not used here: it gives up on a second "Negative prompt:" and on settings without a
sampler, drops settings whose value is quoted or holds a colon, and its patterns take quadratic time
on long texts. It is the oracle of the tests. Here the time is linear in the length of the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_NEGATIVE = "Negative prompt:"
_TEMPLATES = ("Template:", "Negative Template:")
# What the webui and its forks always or mostly write; a prompt's own "key: value, …" has none of
# them.
_KNOWN = frozenset(
    {
        *(
            "Steps",
            "Sampler",
            "Schedule type",
            "CFG scale",
            "Distilled CFG Scale",
            "Seed",
            "Size",
            "Model",
            "Model hash",
        ),
        *("Clip skip", "Denoising strength", "Version", "VAE", "App", "Created Date"),
    }
)
_KNOWN_LOWER = frozenset(map(str.lower, _KNOWN))
_ENOUGH = 3
_RENAMED = {"schedule_type": "scheduler", "guidance_scale": "cfg_scale"}
_KEY = re.compile(r"[A-Za-z][\w \-/.+()]{0,60}")
_INLINE_SETTINGS = re.compile(r"(?<=\s)Steps: \d")
_PIECES = re.compile(r'"(?:\\.|[^"\\])*"|[\[\]{}]|[,|]|"|[^",|\[\]{}]+', re.DOTALL)
_BARS = re.compile(r"\s*Steps: \d{1,6} ?\|", re.IGNORECASE)
"""SD.Next's settings, with a bar where the webui has a comma."""
_STEPS_ALONE = re.compile(r"\s*Steps: (\d{1,6})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parameters:
    """`settings` are by lower-case name with underscores, quotes taken off;

    `negative` is empty where there is none.
    """

    prompt: str
    negative: str
    settings: dict[str, str]


def read_parameters(text: str) -> Parameters | None:
    """The parts of AUTOMATIC1111's text; None where it has neither settings nor a negative prompt.

    As in the webui, a line that begins with "Negative prompt:" ends the prompt, and further such
    lines belong to the negative prompt. Where all stands on one line, the marks inside of it count.
    """
    whole = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines, settings = _split_settings(whole)
    prompt, negative = _split_prompt(lines, is_one_line=sum(map(bool, map(str.strip, whole))) == 1)
    if not settings and negative is None:
        return None
    return Parameters(prompt.strip(), (negative or "").strip(), settings)


def _split_settings(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """The lines before the settings, and the settings: the last line that has some; extensions append lines behind it.

    Templates that Dynamic Prompts appends may look like settings themselves: what follows a line of
    settings from "Template:" on is passed over.
    """
    has_settings = False
    for index, line in enumerate(lines):
        if has_settings and line.startswith(_TEMPLATES):
            lines = lines[:index]
            break
        has_settings = has_settings or (_begins_with_steps(line) and bool(_settings(line)))
    last = next((index for index in range(len(lines) - 1, 0, -1) if lines[index].strip()), 0)
    if last and (alone := _STEPS_ALONE.fullmatch(lines[last])):
        return lines[:last], {"steps": alone[1]}
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        if ":" not in line or ("," not in line and "|" not in line):
            continue
        behind_text = _INLINE_SETTINGS.search(line)
        start = behind_text.start() if behind_text and not _begins_with_a_setting(line) else 0
        if found := _settings(line[start:]):
            return [*lines[:index], line[:start]], found
    return lines, {}


def _begins_with_a_setting(line: str) -> bool:
    key, mark, _ = line.partition(":")
    return (
        bool(mark)
        and _KEY.fullmatch(key.strip()) is not None
        and not (key + mark).endswith(_NEGATIVE)
    )


def _split_prompt(lines: list[str], *, is_one_line: bool) -> tuple[str, str | None]:
    """(prompt, negative prompt or None where nothing marks one)."""
    first = next((number for number, line in enumerate(lines) if _is_negative(line)), None)
    if first is None:
        prompt, mark, negative = "\n".join(lines).partition(_NEGATIVE)
        return (prompt, negative) if mark and is_one_line else ("\n".join(lines), None)
    behind = [_behind_mark(line) if _is_negative(line) else line.lstrip() for line in lines[first:]]
    return "\n".join(lines[:first]), "\n".join(behind)


def _is_negative(line: str) -> bool:
    """Imitators write the mark with other capitals."""
    return line.lstrip()[: len(_NEGATIVE)].lower() == _NEGATIVE.lower()


def _behind_mark(line: str) -> str:
    return line.lstrip()[len(_NEGATIVE) :].removeprefix(" ")


def _begins_with_steps(line: str) -> bool:
    return line.lstrip()[:6].lower() == "steps:"


def _settings(line: str) -> dict[str, str]:
    """The settings on a line, or nothing where it is a line of a prompt.

    They have three known names, or two, in any capitals, where "Steps:" begins the line.
    """
    found: dict[str, str] = {}
    for item in _items(line):
        key, mark, value = item.partition(":")
        if mark and _KEY.fullmatch(key.strip()):
            found.setdefault(key.strip(), _unquoted(value.strip()))
    if _begins_with_steps(line):
        is_enough = len(_KNOWN_LOWER & set(map(str.lower, found))) >= _ENOUGH - 1
    else:
        is_enough = len(_KNOWN & found.keys()) >= _ENOUGH
    if not is_enough:
        return {}
    named = {key.lower().replace(" ", "_"): value for key, value in found.items() if value}
    return {_RENAMED.get(key, key): value for key, value in named.items()}


def _items(line: str) -> list[str]:
    """The parts between commas outside of quotes and brackets; between all commas where those do not pair up."""
    comma = "|" if _BARS.match(line) else ","
    items: list[str] = []
    parts: list[str] = []
    depth = 0
    for match in _PIECES.finditer(line):
        piece = match.group()
        if piece == '"':
            return line.split(comma)
        depth += (piece in "[{") - (piece in "]}")
        if piece == comma and depth == 0:
            items.append("".join(parts))
            parts = []
        else:
            parts.append(piece)
        if depth < 0:
            return line.split(comma)
    return line.split(comma) if depth else [*items, "".join(parts)]


def _unquoted(value: str) -> str:
    """The webui writes a value with a comma, a colon or a line end as a JSON string."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value[1:-1]
    return value
