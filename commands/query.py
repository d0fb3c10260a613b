"""`query`: ask the index about images, a text, or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.ensemble_options import EnsembleOptions, tell_left_out
from imprompt.commands.index_options import IndexOptions, LoadedIndex, open_index
from imprompt.commands.options import EncoderName, IgnoreMetadata
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.core.errors import ImpromptError, MemberUnavailable
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.retriever import Filters, Question
    from imprompt.retriever.answers import (
        Answer,
        EstimatedPrompt,
        Explanation,
        Neighbour,
        Suggestion,
    )

_SHOWN_SETTINGS = ("model", "sampler", "scheduler", "steps", "cfg_scale", "seed", "size")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """Which prompts may answer."""

    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="EXPR",
            help="Only prompts that match this condition, in SQL syntax: "
            "\"n_submitted >= 3 AND text ILIKE '%castle%'\".",
            show_default=False,
        ),
    ] = None
    contains: Annotated[
        list[str] | None,
        typer.Option(
            "--contains",
            metavar="WORDS",
            help="Only prompts that contain these words; repeatable.",
            show_default=False,
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="WORDS",
            help="No prompts that contain these words; repeatable.",
            show_default=False,
        ),
    ] = None
    no_artists: Annotated[
        bool,
        typer.Option(
            "--no-artists", help="No prompts that name an artist of clip-interrogator's list."
        ),
    ] = False

    def filters(self) -> Filters:
        """Return the filters of a search."""
        from imprompt.retriever import Filters

        contains, exclude = tuple(self.contains or ()), tuple(self.exclude or ())
        return Filters(self.where, contains, exclude, self.no_artists)


def query(
    *,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE…", help="Image files, folders of them, or patterns (*.png)."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="A text to search for, alone or mixed with each image."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=0, help="Number of nearest prompts to show.")] = 10,
    filtering: FilterOptions,
    effort: Annotated[
        float | None,
        typer.Option(
            "--effort",
            min=0,
            max=1,
            help="How thoroughly to search a large index, from 0 (fast) to 1 (exact).",
            show_default="the effort whose recall `info` shows",
        ),
    ] = None,
    ignore_metadata: IgnoreMetadata = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each member's contribution. Images only.")
    ] = False,
    ensemble: EnsembleOptions,
    location: IndexOptions,
    encoder: EncoderName = None,
    output: Output,
) -> None:
    """Find the prompt behind an image.

    A prompt in the image file is the answer, marked `exact`, or `carried` if something outside of
    the file changed it; this needs no index and no model. Otherwise the answer is `estimated`: the
    ensemble composes it from the prompts around the image, and suggests their commonest negative
    prompt and settings if the corpus has any. For a text, alone or with an image, the
    nearest prompts are shown. Images that cannot be read are listed; the others are answered. Of
    near-duplicate prompts, one is shown.
    """
    from imprompt.core.errors import EncoderError, MemberUnavailable, StoreError
    from imprompt.images.image_files import require_images
    from imprompt.retriever import Question
    from imprompt.retriever.search import BATCH_QUESTIONS

    filters = filtering.filters()
    _check_options(images, text, explain=explain, ensemble=ensemble)
    paths = require_images(images or [])
    questions = [Question(path, text, ignore_metadata=ignore_metadata) for path in paths] or [
        Question(image=None, text=text)
    ]
    from_files = bool(paths) and not (text or explain or ignore_metadata)
    if from_files and k == 0 and _answer_from_files(output, questions, others=None):
        return
    few = len(questions) <= BATCH_QUESTIONS
    with ExitStack() as stack:
        try:
            index = stack.enter_context(open_index(output, location, encoder=encoder, few=few))
        except (EncoderError, StoreError) as error:
            if not from_files:
                raise
            _answer_from_files(output, questions, others=error)
            return
        loaded: Ensemble | MemberUnavailable | None = None
        if paths and not text:
            try:
                loaded = ensemble.load(index, output, effort=effort)
            except MemberUnavailable as error:
                if not from_files:
                    raise
                loaded = error
        results = _ask(questions, max(k, 1), index, loaded, filters=filters, effort=effort)
        _show_all(output, questions, results, k=k, explain=explain)
    output.close(total=len(questions))
    if loaded is not None and not isinstance(loaded, MemberUnavailable):
        tell_left_out(loaded)


def _check_options(
    images: list[Path] | None, text: str | None, *, explain: bool, ensemble: EnsembleOptions
) -> None:
    """Raise `ConfigError` for options that contradict each other."""
    from imprompt.core.errors import ConfigError

    if (explain or ensemble) and (text or not images):
        raise ConfigError(
            "--explain, --blend, --phrases and --degrade only work on images without a text.",
            hint="Leave them out to search for the text.",
        )


def _ask(
    questions: Sequence[Question],
    k: int,
    index: LoadedIndex,
    ensemble: Ensemble | MemberUnavailable | None,
    *,
    filters: Filters,
    effort: float | None,
) -> Iterator[Answer | ImpromptError]:
    """Answer the questions with the ensemble, or search for them if there is none."""
    from imprompt.core.errors import MemberUnavailable
    from imprompt.retriever import Retriever

    if ensemble is None or isinstance(ensemble, MemberUnavailable):
        retriever = Retriever(index.version, index.encoder, effort=effort)
    else:
        retriever = Retriever(index.version, ensemble.neighbourhood.encoder, effort=effort)
    if ensemble is None:
        return retriever.ask(questions, k, filters=filters)
    from imprompt.ensemble.estimates import ask

    return ask(questions, k, retriever=retriever, ensemble=ensemble, filters=filters)


def _show_all(
    output: Output,
    questions: Sequence[Question],
    results: Iterator[Answer | ImpromptError],
    *,
    k: int,
    explain: bool,
) -> None:
    from imprompt.core.errors import ImpromptError

    for question, result in zip(questions, results, strict=True):
        if isinstance(result, ImpromptError):
            output.fail(str(question.image or question.text or ""), result)
        else:
            _show(output, result.nearest(k), k=k, explain=explain)


def _answer_from_files(
    output: Output, questions: Sequence[Question], *, others: ImpromptError | None
) -> bool:
    """Answer with the prompts that files carry, without index and model.

    Args:
        output: shows the answers.
        questions: about images.
        others: why nothing can be estimated; the error of every file that carries no prompt. With
            None, nothing is answered unless every file carries a prompt or cannot be read.

    Returns:
        Whether the questions were answered.

    Raises:
        ImpromptError, PartialFailure: as `Output.close`.
    """
    from imprompt.core.errors import ImpromptError
    from imprompt.retriever.file_prompts import answers_from_files

    results: list[Answer | ImpromptError] = []
    for question, result in zip(questions, answers_from_files(questions), strict=True):
        if result is not None:
            results.append(result)
        elif others is None:
            return False
        else:
            results.append(_for_image(others, question))
    if others is not None and not all(isinstance(result, ImpromptError) for result in results):
        output.note(f"No nearest prompts are shown: {others}")
    for question, answer in zip(questions, results, strict=True):
        if isinstance(answer, ImpromptError):
            output.fail(str(question.image), answer)
        else:
            _show(output, answer, k=0)
    output.close(total=len(questions))
    return True


def _for_image(error: ImpromptError, question: Question) -> ImpromptError:
    """Return why one image has no answer: it carries no prompt, and `error`."""
    named = copy(error)
    named.message = (
        f"{question.image!s} carries no prompt, and none can be estimated. {error.message}"
    )
    return named


def _show(output: Output, answer: Answer, *, k: int, explain: bool = False) -> None:
    if output.json:
        output.line(answer.to_json(explain=explain))
        return
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
        (f"{hit.score:.3f}", _prompt_text(hit), f"{hit.source}:{hit.source_key}")
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
    """Print the phrases of the prompt by role, or those that many prompts share."""
    phrases = estimate.shared if estimate.close is False else estimate.phrases
    title = "Phrases that many prompts around it share" if estimate.close is False else "Phrases"
    rows = [(phrase.role, phrase.text, f"{phrase.support}") for phrase in phrases]
    if rows:
        output.table(grid(title, ["role", "phrase", "prompts"], rows, right=["prompts"]))


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
