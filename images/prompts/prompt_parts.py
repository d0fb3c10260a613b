"""The parts that each reader of a tool's form returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A prompt with its settings.

    Args:
        negative: the negative prompt; empty without one.
        settings: lower-case names with underscores to their text.
        doubt: one line that names what keeps the texts from being certain; empty where they are.
    """

    prompt: str
    negative: str
    settings: dict[str, str]
    doubt: str = ""
