"""Midjourney's description: the prompt as it was typed, and `Job ID: …` behind it."""

from __future__ import annotations

import re

from imprompt.images.prompts.parameters import Parameters

_MARK = "Job ID:"
_ID = re.compile(r"\s*([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\s*")


def read_midjourney(text: str) -> Parameters | None:
    """Return the prompt, with its switches (`--ar 1:1`);

    None where no job's number ends the text.
    """
    prompt, mark, behind = text.rstrip("\0").rpartition(_MARK)
    job = _ID.fullmatch(behind) if mark else None
    return None if job is None else Parameters(prompt.strip(), "", {"job_id": job[1]})
