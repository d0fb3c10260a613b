"""`query`: ask the index about images, a text, or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.answer_options import FULL_IMAGES, AnswerOptions, AnswerReport, reporting
from imprompt.commands.ensemble_options import EnsembleOptions, tell_left_out
from imprompt.commands.index_options import IndexOptions, LoadedIndex, open_index
from imprompt.commands.options import EncoderName, IgnoreMetadata
from imprompt.commands.output import Output
from imprompt.core.progress import SILENT

if TYPE_CHECKING:
    from imprompt.core.errors import ImpromptError, MemberUnavailable
    from imprompt.core.protocols import Progress
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.retriever import Filters, Question
    from imprompt.retriever.answers import Answer


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
        list[str] | None,
        typer.Argument(
            metavar="IMAGE…",
            help="Image files, folders of them, or patterns (*.png); - reads one image from "
            "standard input.",
        ),
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
    answers: AnswerOptions,
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
    near-duplicate prompts, one is shown. Of more than three images each gets one line, with the
    prompt and how it was found; --verbose or --explain shows all.
    """
    from imprompt.commands.image_arguments import named_images
    from imprompt.retriever import Question

    filters = filtering.filters()
    names = images or []
    _check_options(names, text, explain=explain, ensemble=ensemble)
    answers.check(json=output.json, explain=explain)
    answers.check_question(names, text)
    questions = [
        Question(image, text, ignore_metadata=ignore_metadata) for image in named_images(names)
    ] or [Question(image=None, text=text)]
    asking = _Asking(
        questions,
        max(k, 1),
        filters,
        effort,
        from_files=bool(names) and not (text or explain or ignore_metadata),
        progress=output.progress(answering=True) if len(questions) > FULL_IMAGES else SILENT,
    )
    with reporting(output, answers, questions, k=k, explain=explain) as report:
        loaded: Ensemble | None = None
        if not (asking.from_files and k == 0 and _all_from_files(asking, report)):
            loaded = _answer(asking, report, ensemble, location, encoder=encoder)
    outcome = "were done" if answers.txt else "were answered"
    output.close(total=len(questions), outcome=outcome)
    if loaded is not None:
        tell_left_out(loaded)


@dataclass(frozen=True, slots=True)
class _Asking:
    """What is asked; `from_files` if a file's own prompt is an answer without the index."""

    questions: Sequence[Question]
    k: int
    filters: Filters
    effort: float | None
    from_files: bool
    progress: Progress


def _check_options(
    images: list[str], text: str | None, *, explain: bool, ensemble: EnsembleOptions
) -> None:
    """Raise `ConfigError` for options that contradict each other."""
    from imprompt.core.errors import ConfigError

    if (explain or ensemble) and (text or not images):
        raise ConfigError(
            "--explain, --blend, --phrases and --degrade only work on images without a text.",
            hint="Leave them out to search for the text.",
        )


def _answer(
    asking: _Asking,
    report: AnswerReport,
    ensemble: EnsembleOptions,
    location: IndexOptions,
    *,
    encoder: str | None,
) -> Ensemble | None:
    """Answer from the index, or only from files without one; return the ensemble, if any."""
    from imprompt.core.errors import EncoderError, MemberUnavailable, StoreError
    from imprompt.retriever.search import BATCH_QUESTIONS

    output = report.output
    few = len(asking.questions) <= BATCH_QUESTIONS
    with ExitStack() as stack:
        try:
            index = stack.enter_context(open_index(output, location, encoder=encoder, few=few))
        except (EncoderError, StoreError) as error:
            if not asking.from_files:
                raise
            _from_files_alone(asking, report, error)
            return None
        loaded: Ensemble | MemberUnavailable | None = None
        if asking.questions[0].image is not None and not asking.questions[0].text:
            try:
                loaded = ensemble.load(index, output, effort=asking.effort)
            except MemberUnavailable as error:
                if not asking.from_files:
                    raise
                loaded = error
        _report_each(asking, report, _results(asking, index, loaded))
    return None if isinstance(loaded, MemberUnavailable) else loaded


def _results(
    asking: _Asking, index: LoadedIndex, ensemble: Ensemble | MemberUnavailable | None
) -> Iterator[Answer | ImpromptError]:
    """Answer the questions with the ensemble, or search for them if there is none."""
    from imprompt.core.errors import MemberUnavailable
    from imprompt.retriever import Retriever

    questions, k, filters = asking.questions, asking.k, asking.filters
    if ensemble is None or isinstance(ensemble, MemberUnavailable):
        retriever = Retriever(index.version, index.encoder, effort=asking.effort)
    else:
        retriever = Retriever(index.version, ensemble.neighbourhood.encoder, effort=asking.effort)
    if ensemble is None:
        return retriever.ask(questions, k, filters=filters)
    from imprompt.ensemble.estimates import ask

    return ask(questions, k, retriever=retriever, ensemble=ensemble, filters=filters)


def _report_each(
    asking: _Asking, report: AnswerReport, results: Iterator[Answer | ImpromptError]
) -> None:
    """AnswerReport each result as it comes."""
    with asking.progress.start("Answering", len(asking.questions)) as task:
        for question, result in zip(asking.questions, results, strict=True):
            report.add(question, result)
            task.advance(1)


def _all_from_files(asking: _Asking, report: AnswerReport) -> bool:
    """Answer all questions with the prompts that files carry, without index and model.

    Returns:
        Whether that was done; nothing is unless every file carries a prompt or cannot be read.
    """
    from imprompt.retriever.file_prompts import answers_from_files

    results: list[Answer | ImpromptError] = []
    with asking.progress.start("Reading", len(asking.questions)) as task:
        for result in answers_from_files(asking.questions):
            if result is None:
                return False
            results.append(result)
            task.advance(1)
    for question, result in zip(asking.questions, results, strict=True):
        report.add(question, result)
    return True


def _from_files_alone(asking: _Asking, report: AnswerReport, why: ImpromptError) -> None:
    """Answer with the prompts that files carry; `why` is what the others fail with."""
    from imprompt.core.errors import ImpromptError
    from imprompt.retriever.file_prompts import answers_from_files

    def results() -> Iterator[Answer | ImpromptError]:
        told = False
        found = answers_from_files(asking.questions)
        for question, result in zip(asking.questions, found, strict=True):
            if result is None:
                yield _without_estimate(why, question)
                continue
            if not (told or isinstance(result, ImpromptError)):
                told = True
                report.output.note(f"No nearest prompts are shown: {why}")
            yield result

    _report_each(asking, report, results())


def _without_estimate(error: ImpromptError, question: Question) -> ImpromptError:
    """Return why one image has no answer: it carries no prompt, and `error`."""
    name = "Standard input" if isinstance(question.image, bytes) else str(question.image)
    named = copy(error)
    named.message = f"{name} carries no prompt, and none can be estimated. {error.message}"
    return named
