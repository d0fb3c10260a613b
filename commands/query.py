"""`query`: images, a text, or both, against the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.blend_options import (
    Blend,
    Degrade,
    Phrases,
    explain,
    load_ensemble_for,
    show_explanation,
    tell_left_out,
)
from imprompt.commands.filter_options import Contains, Effort, Exclude, NoArtists, Where
from imprompt.commands.index_options import open_index
from imprompt.commands.options import (
    Device,
    EncoderName,
    IndexOption,
    Json,
    Neighbours,
    Offline,
    Quiet,
    Verbose,
)
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.core.errors import ImpromptError
    from imprompt.ensemble.explanation import ExplainedAnswer
    from imprompt.retriever import Question
    from imprompt.retriever.answers import Answer, Neighbour

_SHOWN_SETTINGS = ("model", "sampler", "scheduler", "steps", "cfg_scale", "seed", "size")


def query(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE…", help="Image files or folders of them.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="A text to search for, alone or mixed with each image."),
    ] = None,
    k: Neighbours = 10,
    where: Where = None,
    contains: Contains = None,
    exclude: Exclude = None,
    no_artists: NoArtists = False,
    effort: Effort = None,
    ignore_metadata: Annotated[
        bool,
        typer.Option(
            "--ignore-metadata", help="Estimate, as if the file did not carry its prompt."
        ),
    ] = False,
    explanation: Annotated[
        bool,
        typer.Option(
            "--explain", help="Let the ensemble answer, and show each member's vote. Images only."
        ),
    ] = False,
    blend: Blend = None,
    phrases: Phrases = None,
    degrade: Degrade = False,
    index: IndexOption = None,
    encoder: EncoderName = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Find the prompt behind an image.

    A prompt that the file carries is answered as *exact*, or as *carried* where something that is
    not in the file was done with it; this needs no index and no model. Otherwise the nearest
    prompts of the index are found and the answer is *estimated*. Several images are encoded in
    batches; one that cannot be read is listed and the rest is answered. Of prompts that are nearly
    the same, one is shown.
    """
    from imprompt.core.errors import ConfigError, EncoderError, ImpromptError, StoreError
    from imprompt.images.image_files import require_images
    from imprompt.retriever import Filters, Question, Retriever
    from imprompt.retriever.search import BATCH_QUESTIONS

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if (blend or degrade or phrases) and not explanation:
        raise ConfigError(
            "--blend, --phrases and --degrade are about the ensemble's answer.",
            hint="Add --explain to ask for it.",
        )
    if explanation and (text or not images):
        raise ConfigError(
            "--explain is about images: the members cannot look at a text.",
            hint="Ask for the text without --explain.",
        )
    filters = Filters(where, tuple(contains or ()), tuple(exclude or ()), no_artists)
    if explanation and (filters or effort is not None):
        raise ConfigError(
            "--explain asks members that know of no filters and no --effort.",
            hint="Ask for the filtered prompts without --explain.",
        )
    paths = require_images(images or [])
    questions = [Question(path, text, ignore_metadata=ignore_metadata) for path in paths] or [
        Question(image=None, text=text)
    ]
    few = len(questions) <= BATCH_QUESTIONS
    from_files = bool(paths) and not (text or explanation or ignore_metadata)
    if from_files and k == 0 and _answer_from_files(output, questions, others=None):
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(
                open_index(
                    output, index=index, device=device, offline=offline, encoder=encoder, few=few
                )
            )
        except (EncoderError, StoreError) as error:
            if not from_files:
                raise
            _answer_from_files(output, questions, others=error)
            return
        results: Iterator[Answer | ExplainedAnswer | ImpromptError]
        if explanation:
            ensemble = load_ensemble_for(
                blend, opened, phrases=phrases, degrade=degrade, output=output
            )
            results = explain(ensemble, questions, max(k, 1), version=opened.version)
        else:
            results = Retriever(opened.version, opened.pair, effort=effort).ask(
                questions, max(k, 1), filters=filters
            )
        for question, result in zip(questions, results, strict=True):
            if isinstance(result, ImpromptError):
                output.fail(str(question.image or text or ""), result)
            else:
                _show(output, result if k else _without_neighbours(result))
    output.close(total=len(questions))
    if explanation:
        tell_left_out(ensemble)


def _answer_from_files(
    output: Output, questions: Sequence[Question], *, others: ImpromptError | None
) -> bool:
    """Answer what the files carry, without index and model.

    Args:
        others: why nothing can be estimated, the error of every file that carries no prompt. None
            answers only where every file carries one or cannot be read.

    Returns:
        Whether the questions were answered.

    Raises:
        ImpromptError, PartialFailure: as `Output.close`.
    """
    from imprompt.core.errors import ImpromptError
    from imprompt.retriever.file_prompts import answers_from_files

    if others is None:
        results = list(answers_from_files(questions))
        if None in results:
            return False
    else:
        answers = zip(questions, answers_from_files(questions), strict=True)
        results = [
            _for_image(others, question) if result is None else result
            for question, result in answers
        ]
        if any(not isinstance(result, ImpromptError) for result in results):
            output.note(f"No nearest prompts are shown: {others}")
    for question, result in zip(questions, results, strict=True):
        if isinstance(result, ImpromptError):
            output.fail(str(question.image), result)
        elif result is not None:
            _show(output, result)
    output.close(total=len(questions))
    return True


def _for_image(error: ImpromptError, question: Question) -> ImpromptError:
    """The reason why one image has no answer."""
    named = copy(error)
    named.message = (
        f"{question.image!s} carries no prompt, and nothing can be estimated: {error.message}"
    )
    return named


def _without_neighbours(result: Answer | ExplainedAnswer) -> Answer | ExplainedAnswer:
    from imprompt.retriever.answers import Answer

    if isinstance(result, Answer):
        return replace(result, neighbours=())
    return replace(result, answer=replace(result.answer, neighbours=()))


def _show(output: Output, result: Answer | ExplainedAnswer) -> None:
    from imprompt.retriever.answers import Answer

    if output.json:
        output.line(result.to_json())
        return
    answer = result if isinstance(result, Answer) else result.answer
    output.text("")
    for line in _head(answer):
        output.text(line)
    if not isinstance(result, Answer):
        show_explanation(output, result.explanation)
    if not answer.neighbours and not answer.filters:
        return
    rows = [
        (f"{hit.score:.3f}", _prompt_text(hit), f"{hit.source}:{hit.source_key}")
        for hit in answer.neighbours
    ]
    title = (
        f"The {len(rows)} nearest prompts" if rows else "No prompt of the index passes the filter"
    )
    output.table(grid(title, ["score", "prompt", "source"], rows, right=["score"]))


def _prompt_text(hit: Neighbour) -> str:
    return f"{hit.prompt} (and {hit.n_like:,} like it)" if hit.n_like else hit.prompt


def _head(answer: Answer) -> Iterator[str]:
    yield str(answer.image or answer.text)
    if answer.how != "estimated":
        yield f"  {answer.how}, written in the file by {answer.tool or 'its tool'}: {answer.prompt}"
        if answer.doubt:
            yield f"  not exact: {answer.doubt}"
        if answer.negative:
            yield f"  negative: {answer.negative}"
        if shown := [
            f"{name} {answer.settings[name]}" for name in _SHOWN_SETTINGS if name in answer.settings
        ]:
            yield "  " + ", ".join(shown)
    else:
        yield f"  estimated: {answer.prompt}"
    if answer.note:
        yield f"  {answer.note}"
    if answer.filters:
        yield f"  neighbours filtered: {answer.filters}"
    if answer.encoder:
        yield f"  encoder {answer.encoder}, corpus {answer.corpus}, {answer.seconds:.2f} s"
