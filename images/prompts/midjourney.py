"""Midjourney's description: the prompt as it was typed, then `Job ID: …`."""

from __future__ import annotations

import re

from imprompt.images.prompts.prompt_parts import PromptParts

_MARK = "Job ID:"
_ID = re.compile(r"\s*([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\s*")


def read_midjourney(text: str) -> PromptParts | None:
    """Return the prompt with its switches (`--ar 1:1`); None where no job id ends the text."""
    prompt, mark, rest = text.rstrip("\0").rpartition(_MARK)
    job = _ID.fullmatch(rest) if mark else None
    return None if job is None else PromptParts(prompt.strip(), "", {"job_id": job[1]})
