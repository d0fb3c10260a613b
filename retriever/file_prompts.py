"""Answers from the metadata of image files, without an index or a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from imprompt.core.errors import ImpromptError
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.images.prompts.reading import read_embedded_prompts
from imprompt.retriever.answers import Answer, Question


def answers_from_files(questions: Sequence[Question]) -> Iterator[Answer | ImpromptError | None]:
    """Yield one result per question, in order, from the prompt in its image file.

    A result is an answer without neighbours, None if the file has no prompt, or the error if it
    cannot be read.

    Args:
        questions: each with an image.
    """
    images = [question.image for question in questions if question.image is not None]
    for image, result in read_embedded_prompts(images, hidden=True):
        if isinstance(result, EmbeddedPrompt):
            yield Answer(
                image=image if isinstance(image, Path) else None,
                text=None,
                prompt=result.prompt,
                how=result.how,
                neighbours=(),
                negative=result.negative,
                tool=result.tool,
                settings=result.settings,
                doubt=result.doubt,
            )
        else:
            yield result
