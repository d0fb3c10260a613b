"""Answers that need no index and no model: the prompts that image files carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from imprompt.core.errors import ImpromptError
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.images.prompts.reading import read_embedded_prompts
from imprompt.retriever.answers import Answer, Question


def answers_from_files(questions: Sequence[Question]) -> Iterator[Answer | ImpromptError | None]:
    """Yield what the file of each question's image says, in order, without neighbours; None where it carries no prompt.

    Every question has the path of an image. An image that cannot be read gives its error.
    """
    paths = [question.image for question in questions if isinstance(question.image, Path)]
    for path, found in read_embedded_prompts(paths, hidden=True):
        yield _answer(path, found) if isinstance(found, EmbeddedPrompt) else found


def _answer(path: Path, found: EmbeddedPrompt) -> Answer:
    return Answer(
        image=path,
        text=None,
        prompt=found.prompt,
        how=found.how,
        neighbours=(),
        encoder="",
        corpus="",
        version="",
        seconds=0.0,
        negative=found.negative,
        tool=found.tool,
        settings=found.settings,
        doubt=found.doubt,
    )
