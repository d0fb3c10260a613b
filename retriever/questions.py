"""Reads a question: decodes its image, finds the prompt in that file, normalizes its text."""

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
    """A question with at least one of `picture` and `text`.

    `picture` is upright RGB, shrunk as far as `ENOUGH_PX` allows. `text` is normalized and valid
    Unicode, or empty. `carried` is the prompt in the image's file, and `note` as in `Answer`.
    """

    question: Question
    picture: Image | None
    text: str
    carried: EmbeddedPrompt | None
    note: str = ""

    @property
    def n_pixels(self) -> int:
        """The pixels of the picture; 0 if there is none."""
        return self.picture.width * self.picture.height if self.picture else 0


@dataclass(frozen=True, slots=True)
class ReadImage:
    """The decoded picture of an image file, the prompt in the file, and `note` as in `Answer`."""

    picture: Image
    carried: EmbeddedPrompt | None
    note: str = ""


def read_question(question: Question, *, limits: ImageLimits = DEFAULT_LIMITS) -> ReadQuestion:
    """Return the question with its image and text read.

    Raises:
        EmptyQuery: there is neither an image nor a text.
        ImageRejected: the image cannot be read within the limits.
    """
    if question.image is None:
        return complete_question(question, None)
    return complete_question(question, read_image(question.image, question.ignore_metadata, limits))


def read_image(image: Path | bytes, ignore_metadata: bool, limits: ImageLimits) -> ReadImage:
    """Return the image read; raises like `read_question`."""
    carried, note = (None, "") if ignore_metadata else _read_prompt(image, limits)
    return ReadImage(open_image(image, limits=limits, enough_px=ENOUGH_PX), carried, note)


def complete_question(question: Question, image: ReadImage | None) -> ReadQuestion:
    """Return the question with its text normalized and its image as read.

    Raises:
        EmptyQuery: there is neither an image nor a text.
    """
    # A command-line argument that is not UTF-8 arrives with lone surrogates, which tokenizers
    # reject.
    text = normalize_text((question.text or "").encode("utf-8", "replace").decode("utf-8"))
    if image is not None:
        return ReadQuestion(question, image.picture, text, image.carried, image.note)
    if not text:
        raise EmptyQuery(
            "Neither an image nor a text was given.", hint="Name an image file, a text, or both."
        )
    return ReadQuestion(question, None, text, None)


def _read_prompt(image: Path | bytes, limits: ImageLimits) -> tuple[EmbeddedPrompt | None, str]:
    """Return the prompt in the metadata or hidden in the pixels, and why it was not looked for."""
    try:
        return read_embedded_prompt(image, limits=limits, hidden=True), ""
    except MetadataRejected as error:
        return None, f"its metadata is not read: {error.reason}"
