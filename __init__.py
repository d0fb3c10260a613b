"""imprompt finds the prompt behind an image.

>>> import imprompt
>>> imprompt.read_prompt("image.png")                     # what the file carries
>>> index = imprompt.Index.build("prompts.parquet")       # or Index.open()
>>> index.query("image.png")                              # what such images are made with
>>> index.search("a lighthouse at dusk").nearest
>>> imprompt.embed_prompts(["a lighthouse"])              # all-MiniLM-L6-v2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imprompt.core.errors import ImpromptError as ImpromptError
    from imprompt.notebook.functions import embed_prompts as embed_prompts
    from imprompt.notebook.functions import read_prompt as read_prompt
    from imprompt.notebook.prompt_answers import Answers as Answers
    from imprompt.notebook.prompt_answers import PromptAnswer as PromptAnswer
    from imprompt.notebook.prompt_index import Index as Index

_HOMES = {
    "Answers": "notebook.prompt_answers",
    "ImpromptError": "core.errors",
    "Index": "notebook.prompt_index",
    "PromptAnswer": "notebook.prompt_answers",
    "embed_prompts": "notebook.functions",
    "read_prompt": "notebook.functions",
}

__all__ = ["Answers", "ImpromptError", "Index", "PromptAnswer", "embed_prompts", "read_prompt"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line pays for none."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
