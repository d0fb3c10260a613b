"""Answers as notebooks show them: the prompt, its phrases, and the nearest prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from imprompt.core.errors import ImpromptError
from imprompt.core.values import Phrase
from imprompt.notebook.pictures import thumbnail
from imprompt.retriever.answers import Answer, How, Neighbour, Question

_STYLE = """<style>
.imprompt{font:14px/1.45 system-ui,sans-serif;max-width:60rem;margin:.6em 0}
.imprompt img{float:left;margin:0 1em .6em 0;max-width:12rem;border-radius:4px}
.imprompt .prompt{font-size:1.1em;margin:0 0 .3em}
.imprompt .how{opacity:.7}
.imprompt .chip{display:inline-block;border:1px solid currentColor;border-radius:1em;padding:0 .6em;
margin:.1em .2em .1em 0}
.imprompt .chip small{opacity:.7}
.imprompt table{clear:both;border-collapse:collapse}
.imprompt td,.imprompt th{padding:.1em .8em .1em 0;text-align:left;vertical-align:top}
</style>"""
_SHOWN = 5


@dataclass(frozen=True)
class PromptAnswer:
    """The answer to one question, or the error if it cannot be answered.

    `answer` has all of it; the other attributes are the common parts.
    """

    question: Question
    result: Answer | ImpromptError

    @property
    def error(self) -> ImpromptError | None:
        """Return why there is no answer; None if there is one."""
        return self.result if isinstance(self.result, ImpromptError) else None

    @property
    def answer(self) -> Answer:
        """Return the answer.

        Raises:
            ImpromptError: there is none.
        """
        if isinstance(self.result, ImpromptError):
            raise self.result
        return self.result

    @property
    def image(self) -> str:
        """Return the path of the image; "" for a picture in memory and for a text."""
        return str(self.question.image) if isinstance(self.question.image, Path) else ""

    @property
    def prompt(self) -> str:
        """Return the prompt; "" for a text, which is only searched for."""
        return self.answer.prompt

    @property
    def negative(self) -> str:
        """Return the negative prompt in the file, or ""."""
        return self.answer.negative

    @property
    def how(self) -> How:
        """Return how the prompt was found: "exact", "carried", "estimated" or "searched"."""
        return self.answer.how

    @property
    def nearest(self) -> tuple[Neighbour, ...]:
        """Return the nearest prompts of the index, best first."""
        return self.answer.neighbours

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """Return the phrases of an estimated prompt, each with its role and support."""
        return () if self.answer.estimate is None else self.answer.estimate.phrases

    @property
    def confidence(self) -> float | None:
        """Return the probability that an estimate is close to the true prompt, if it is known."""
        return None if self.answer.estimate is None else self.answer.estimate.confidence

    @property
    def close(self) -> bool | None:
        """Return False where nothing in the corpus is close and the prompt is only a guess."""
        return None if self.answer.estimate is None else self.answer.estimate.close

    @property
    def note(self) -> str:
        """Return what else there is to know: a text in another language, unread metadata; or ""."""
        return self.answer.note

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return what `query --json` prints, as plain values."""
        if self.error is not None:
            error = self.error
            described = {"kind": error.kind, "message": error.message, "hint": error.hint}
            return {"image": self.image, "error": described}
        return self.answer.to_json(explain=explain)

    @cached_property
    def _thumbnail(self) -> str:
        return "" if self.question.image is None else thumbnail(self.question.image)

    def __repr__(self) -> str:
        subject = self.image or self.question.text or "picture"
        said = f"{self.error}" if self.error is not None else f"{self.prompt!r} ({self.how})"
        return f"<PromptAnswer {subject}: {said}>"

    def _repr_html_(self) -> str:
        return f'{_STYLE}<div class="imprompt">{"".join(self._parts())}</div>'

    def _parts(self) -> Iterator[str]:
        if self._thumbnail:
            yield f'<img alt="" src="{self._thumbnail}">'
        if self.error is not None:
            yield f"<p>{escape(str(self.error))}</p>"
            return
        answer, estimate = self.answer, self.answer.estimate
        if estimate is not None and estimate.close is False:
            yield "<p>Nothing in the corpus is close to this image.</p>"
        if answer.how != "searched":
            yield f'<p class="prompt">{escape(answer.prompt)}</p>'
            yield f'<p class="how">{escape(_found(answer))}</p>'
        if answer.note:
            yield f"<p>{escape(answer.note)}</p>"
        if answer.negative:
            yield f"<p>Negative prompt: {escape(answer.negative)}</p>"
        if estimate is not None:
            chips = estimate.shared if estimate.close is False else estimate.phrases
            yield "".join(
                f'<span class="chip" title="{escape(chip.role)}">{escape(chip.text)} '
                f"<small>{chip.support}</small></span>"
                for chip in chips
            )
        if answer.neighbours:
            rows = "".join(
                f'<tr><td title="cosine {hit.score:.3f}">{hit.closeness or f"{hit.score:.3f}"}</td>'
                f"<td>{escape(hit.shown)}</td></tr>"
                for hit in answer.neighbours[:_SHOWN]
            )
            yield f"<table><tr><th></th><th>nearest prompt</th></tr>{rows}</table>"


class Answers(list[PromptAnswer]):
    """The answers to several images, in order; those that failed have an `error`."""

    @property
    def failed(self) -> list[PromptAnswer]:
        """Return those without an answer."""
        return [each for each in self if each.error is not None]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each image, for `pandas.DataFrame`.

        Each has `image`, `prompt`, `how`, `confidence`, `close`, `negative`, `tool` and `error`.
        """
        return [_row(each) for each in self]

    def _repr_html_(self) -> str:
        columns = ("", "image", "prompt", "how")
        head = "".join(f"<th>{name}</th>" for name in columns)
        rows = "".join(
            f'<tr><td><img alt="" src="{each._thumbnail}"></td><td>{escape(each.image)}</td>'
            f"<td>{escape(str(each.error) if each.error is not None else each.prompt)}</td>"
            f"<td>{escape('failed' if each.error is not None else _found(each.answer))}</td></tr>"
            for each in self
        )
        return f'{_STYLE}<div class="imprompt"><table><tr>{head}</tr>{rows}</table></div>'


def _row(each: PromptAnswer) -> dict[str, Any]:
    if each.error is not None:
        empty = dict.fromkeys(("prompt", "how", "confidence", "close", "negative", "tool"))
        return {"image": each.image, **empty, "error": str(each.error)}
    return {
        "image": each.image,
        "prompt": each.prompt,
        "how": each.how,
        "confidence": each.confidence,
        "close": each.close,
        "negative": each.negative,
        "tool": each.answer.tool,
        "error": None,
    }


def _found(answer: Answer) -> str:
    """Return how the prompt was found, in a few words."""
    if answer.how in ("exact", "carried"):
        doubt = f", not exact: {answer.doubt}" if answer.doubt else ""
        return f"{answer.how}, written in the file by {answer.tool or 'its tool'}{doubt}"
    confidence = None if answer.estimate is None else answer.estimate.confidence
    if confidence is None:
        return str(answer.how)
    return f"{answer.how}, {confidence:.0%} likely to be close to the true prompt"
