"""AUTOMATIC1111's text: the prompt, "Negative prompt: …", and a last line of settings.

Forge, SD.Next and many others write it.

sd-parsers is not used: it gives up on a second "Negative prompt:" and on settings without a
sampler, drops settings whose value is quoted or holds a colon, and its patterns take quadratic time
on long texts. The tests compare with it. Here the time is linear in the length of the text.
"""

from __future__ import annotations

import json
import re

from imprompt.images.prompts.prompt_parts import PromptParts

_NEGATIVE = "Negative prompt:"
_TEMPLATES = ("Template:", "Negative Template:")
# What the webui and its forks nearly always write; "key: value, …" within a prompt has none of it.
_KNOWN = frozenset(
    {
        *("Steps", "Sampler", "Schedule type", "CFG scale", "Distilled CFG Scale", "Seed", "Size"),
        *("Model", "Model hash", "Clip skip", "Denoising strength", "Version", "VAE", "App"),
        "Created Date",
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


def read_parameters(text: str) -> PromptParts | None:
    """Return the parts of the text; None where it has neither settings nor a negative prompt.

    As in the webui, a line that begins with "Negative prompt:" ends the prompt, and further such
    lines belong to the negative prompt. In a text of one line, the marks within the line count.
    """
    whole = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines, settings = _split_settings(whole)
    prompt, negative = _split_prompt(lines, is_one_line=sum(map(bool, map(str.strip, whole))) == 1)
    if not settings and negative is None:
        return None
    return PromptParts(prompt.strip(), (negative or "").strip(), settings)


def _split_settings(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the lines before the settings, and the settings: the last line that has any.

    Extensions append further lines. The templates that Dynamic Prompts appends may look like
    settings, so everything from "Template:" on, after a line of settings, is ignored.
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
        inline = _INLINE_SETTINGS.search(line)
        start = inline.start() if inline and not _begins_with_a_setting(line) else 0
        if settings := _settings(line[start:]):
            return [*lines[:index], line[:start]], settings
    return lines, {}


def _begins_with_a_setting(line: str) -> bool:
    key, mark, _ = line.partition(":")
    return (
        bool(mark)
        and _KEY.fullmatch(key.strip()) is not None
        and not (key + mark).endswith(_NEGATIVE)
    )


def _split_prompt(lines: list[str], *, is_one_line: bool) -> tuple[str, str | None]:
    """Return prompt and negative prompt, which is None where nothing marks one."""
    first = next((number for number, line in enumerate(lines) if _is_negative(line)), None)
    if first is None:
        prompt, mark, negative = "\n".join(lines).partition(_NEGATIVE)
        return (prompt, negative) if mark and is_one_line else ("\n".join(lines), None)
    rest = [_without_mark(line) if _is_negative(line) else line.lstrip() for line in lines[first:]]
    return "\n".join(lines[:first]), "\n".join(rest)


def _is_negative(line: str) -> bool:
    """Return whether a line begins with the mark, which imitators write in any case."""
    return line.lstrip()[: len(_NEGATIVE)].lower() == _NEGATIVE.lower()


def _without_mark(line: str) -> str:
    return line.lstrip()[len(_NEGATIVE) :].removeprefix(" ")


def _begins_with_steps(line: str) -> bool:
    return line.lstrip()[:6].lower() == "steps:"


def _settings(line: str) -> dict[str, str]:
    """Return the settings on a line; empty where it is a line of a prompt.

    Settings have three known names, or two (in any case) where "Steps:" begins the line.
    """
    values: dict[str, str] = {}
    for item in _items(line):
        key, mark, value = item.partition(":")
        if mark and _KEY.fullmatch(key.strip()):
            values.setdefault(key.strip(), _unquoted(value.strip()))
    if _begins_with_steps(line):
        is_enough = len(_KNOWN_LOWER & set(map(str.lower, values))) >= _ENOUGH - 1
    else:
        is_enough = len(_KNOWN & values.keys()) >= _ENOUGH
    if not is_enough:
        return {}
    named = {key.lower().replace(" ", "_"): value for key, value in values.items() if value}
    return {_RENAMED.get(key, key): value for key, value in named.items()}


def _items(line: str) -> list[str]:
    """Split at the commas outside quotes and brackets; at all commas where those do not pair up."""
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
    """Return the value; the webui writes one with a comma, colon or line end as a JSON string."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value[1:-1]
    return value
