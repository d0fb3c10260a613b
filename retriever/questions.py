"""A question, read: its picture, the prompt that the picture's file carries, its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.errors import EmptyQuery, MetadataRejected
from imprompt.core.values import normalize_text
from imprompt.images.decode import ENOUGH_PX, open_image
from imprompt.images.image_opening import DEFAULT_LIMITS, ImageLimits
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from imprompt.retriever.answers import Question

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class ReadQuestion:
    """At least one of `picture` (upright RGB; a large one as small as `ENOUGH_PX` allows) and `text` (folded, valid Unicode) is
    there; `note` as in `Answer`."""

    question: Question
    picture: Image | None
    text: str
    carried: EmbeddedPrompt | None
    note: str = ""

    @property
    def n_pixels(self) -> int:
        return self.picture.width * self.picture.height if self.picture else 0


@dataclass(frozen=True, slots=True)
class ReadImage:
    """What one image file gave: its picture, the prompt that it carries, and why none was looked for."""

    picture: Image
    carried: EmbeddedPrompt | None
    note: str = ""


def read_question(question: Question, *, limits: ImageLimits = DEFAULT_LIMITS) -> ReadQuestion:
    """Read the image and the text of a question; `limits` are those of the image.

    Raises:
        EmptyQuery: there is neither.
        ImageRejected: the image cannot be read.
    """
    if question.image is None:
        return joined(question, None)
    return joined(question, read_image(question.image, question.ignore_metadata, limits))


def read_image(image: Path | bytes, ignore_metadata: bool, limits: ImageLimits) -> ReadImage:
    """Read the image of a question; raises as `read_question`."""
    carried, note = (None, "") if ignore_metadata else _carried(image, limits)
    return ReadImage(open_image(image, limits=limits, enough_px=ENOUGH_PX), carried, note)


def joined(question: Question, image: ReadImage | None) -> ReadQuestion:
    """The question with its text folded and its image read; raises `EmptyQuery` as `read_question`."""
    # An argument of the command line that was no UTF-8 arrives with lone surrogates, which no
    # tokenizer takes.
    text = normalize_text((question.text or "").encode("utf-8", "replace").decode("utf-8"))
    if image is not None:
        return ReadQuestion(question, image.picture, text, image.carried, image.note)
    if not text:
        raise EmptyQuery(
            "Neither an image nor a text was given.", hint="Name an image file, a text, or both."
        )
    return ReadQuestion(question, None, text, None)


def _carried(image: Path | bytes, limits: ImageLimits) -> tuple[EmbeddedPrompt | None, str]:
    """The prompt in the file's texts or hidden in its pixels, which are decoded in any case; or why it was not looked for."""
    try:
        return read_embedded_prompt(image, limits=limits, hidden=True), ""
    except MetadataRejected as error:
        return None, f"its metadata is not read: {error.reason}"
