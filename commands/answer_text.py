"""How an answer is printed: in full, or as one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.retriever.answers import (
        Answer,
        EstimatedPrompt,
        Explanation,
        Neighbour,
        Suggestion,
    )

_SHOWN_SETTINGS = ("model", "sampler", "scheduler", "steps", "cfg_scale", "seed", "size")
_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")


def one_line(text: str) -> str:
    """Return the text with each run of line breaks and tabs as one space."""
    return _BREAKS.sub(" ", text).strip()


def answer_line(answer: Answer) -> str:
    """Return one line: the image, its prompt, and how that was found."""
    how: str = answer.how
    if (estimate := answer.estimate) is not None:
        if estimate.close is False:
            how += ", nothing close"
        elif estimate.confidence is not None:
            how += f", {estimate.confidence:.0%}"
    return one_line(f"{answer.image}: {answer.prompt} [{how}]")


def show_answer(output: Output, answer: Answer, *, k: int, explain: bool = False) -> None:
    """Print an answer in full, with its k nearest prompts."""
    output.text("")
    for line in _head(answer):
        output.text(line)
    if answer.estimate is not None:
        _show_phrases(output, answer.estimate)
        if explain:
            _show_explanation(output, answer.estimate.explanation)
    if not k or (not answer.neighbours and not answer.filters):
        return
    rows = [
        (_score(hit), _prompt_text(hit), f"{hit.source}:{hit.source_key}")
        for hit in answer.neighbours
    ]
    if len(rows) == 1:
        title = "The nearest prompt"
    elif rows:
        title = f"The {len(rows)} nearest prompts"
    else:
        title = "No prompt of the index passes the filter"
    output.table(grid(title, ["score", "prompt", "source"], rows, right=["score"]))


def _show_phrases(output: Output, estimate: EstimatedPrompt) -> None:
    """Print the phrases of the prompt by role, or those to choose from, one line for each role."""
    if estimate.close is not False:
        rows = [(phrase.role, phrase.text, f"{phrase.support}") for phrase in estimate.phrases]
        if rows:
            output.table(grid("Phrases", ["role", "phrase", "prompts"], rows, right=["prompts"]))
        return
    by_role: dict[str, list[str]] = {}
    for phrase in estimate.shared:
        by_role.setdefault(phrase.role, []).append(f"{phrase.text} ({phrase.support})")
    if by_role:
        title = "Phrases of the prompts around it, and how many hold each"
        lines = [(role, ", ".join(phrases)) for role, phrases in by_role.items()]
        output.table(grid(title, ["role", "phrases"], lines))


def _suggestion_lines(suggestion: Suggestion) -> Iterator[str]:
    """Yield the commonest negative prompt and settings, each with how many prompts have it."""
    yield f"  suggested, the commonest of the {suggestion.n_prompts} prompts around it:"
    if (negative := suggestion.negative) is not None:
        yield f"  negative ({negative.support} prompts): {negative.text}"
    if suggestion.settings:
        yield "  " + ", ".join(
            f"{common.name} {common.value} ({common.support})" for common in suggestion.settings
        )


def _show_explanation(output: Output, explanation: Explanation) -> None:
    """Print the members left out, and each member's contribution."""
    for error in explanation.left_out:
        output.text(f"  without {error}")
    rows = [
        (part.member, f"{part.share:.3f}", part.text or "") for part in explanation.contributions
    ]
    title = f"Contributions to blend {explanation.blend_config}"
    output.table(grid(title, ["member", "share", "text"], rows, right=["share"]))


def _score(hit: Neighbour) -> str:
    return f"{hit.closeness} {hit.score:.3f}" if hit.closeness else f"{hit.score:.3f}"


def _prompt_text(hit: Neighbour) -> str:
    return f"{hit.shown} (and {hit.n_like:,} like it)" if hit.n_like else hit.shown


def _estimate_lines(prompt: str, estimate: EstimatedPrompt) -> Iterator[str]:
    if estimate.close is False:
        yield "  Nothing in the corpus is close to this image."
        yield f"  best guess: {prompt}"
    else:
        yield f"  estimated: {prompt}"
    if estimate.confidence is not None:
        yield f"  {estimate.confidence:.0%} likely to be close to the true prompt"
    if estimate.tags:
        seen = ", ".join(f"{tag.text} {tag.probability:.0%}" for tag in estimate.tags)
        yield f"  seen in the image: {seen}"
    if estimate.suggestion is not None:
        yield from _suggestion_lines(estimate.suggestion)


def _head(answer: Answer) -> Iterator[str]:
    yield str(answer.image or answer.text)
    if answer.estimate is not None:
        yield from _estimate_lines(answer.prompt, answer.estimate)
    elif answer.how != "searched":
        yield f"  {answer.how}, written in the file by {answer.tool or 'its tool'}: {answer.prompt}"
        if answer.doubt:
            yield f"  not exact: {answer.doubt}"
        if answer.negative:
            yield f"  negative: {answer.negative}"
        if shown := [
            f"{name} {answer.settings[name]}" for name in _SHOWN_SETTINGS if name in answer.settings
        ]:
            yield "  " + ", ".join(shown)
    if answer.note:
        yield f"  {answer.note}"
    if answer.filters:
        yield f"  filters: {answer.filters}"
    if answer.encoder:
        yield f"  encoder {answer.encoder}, corpus {answer.corpus}, {answer.seconds:.2f} s"
