"""What is commonest beside the prompts around a picture: a negative prompt, and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from imprompt.core.values import Parameters, Prompt
from imprompt.retriever.answers import CommonNegative, CommonSetting, Suggestion

LEAST_SUPPORT = 2
"""How many of the prompts must come with the same negative prompt, or the same setting."""


def suggest(
    prompts: Sequence[Prompt],
    parameters: Mapping[int, Parameters],
    *,
    says: Callable[[str], bool] = lambda _text: True,
) -> Suggestion | None:
    """Return the commonest negative prompt and settings; None where nothing occurs twice.

    Two negative prompts are the same if they have the same parts between commas, in any order and
    case; the text is the nearest prompt's. Of equally common ones the nearest is taken.

    Args:
        prompts: those around the picture, nearest first.
        parameters: of those that have any, by row id.
        says: whether a negative prompt may be part of the answer.
    """
    found = [parameters[prompt.row_id] for prompt in prompts if prompt.row_id in parameters]
    negatives = [
        (parts, one.negative)
        for one in found
        if (parts := _parts(one.negative)) and says(one.negative)
    ]
    common = _commonest(negatives)
    names = dict.fromkeys(name for one in found for name in one.settings)
    settings = []
    for name in names:
        values = [one.settings[name] for one in found if name in one.settings]
        value = _commonest([(value.casefold(), value) for value in values])
        if value is not None:
            settings.append(CommonSetting(name, *value))
    if common is None and not settings:
        return None
    negative = None if common is None else CommonNegative(*common)
    return Suggestion(len(prompts), negative, tuple(settings))


def _commonest(keyed: Sequence[tuple[object, str]]) -> tuple[str, int] | None:
    """Return the first text of the commonest key, and how many have it; None for too few."""
    firsts: dict[object, str] = {}
    counts: dict[object, int] = {}
    for key, text in keyed:
        firsts.setdefault(key, text)
        counts[key] = counts.get(key, 0) + 1
    if not counts or max(counts.values()) < LEAST_SUPPORT:
        return None
    key = max(counts, key=lambda key: counts[key])
    return firsts[key], counts[key]


def _parts(negative: str) -> frozenset[str]:
    parts = (" ".join(part.split()) for part in negative.casefold().split(","))
    return frozenset(part for part in parts if part)
