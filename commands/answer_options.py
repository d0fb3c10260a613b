"""Where the answers of `query` go: its options, and the report that follows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imprompt.commands.image_arguments import STDIN
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.commands.answer_files import DescribedCopies, PromptTable, Sidecars
    from imprompt.core.errors import ImpromptError
    from imprompt.retriever.answers import Answer, Question

FULL_IMAGES = 3
"""So many images are answered in full; of more, each gets one line."""
_TXT_FROM = ("exact", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """Whether prompts are written beside their images, and whether they alone are printed."""

    txt: Annotated[
        bool,
        typer.Option(
            "--txt",
            help="Also write each prompt, in one line, to NAME.txt next to its image, as trainers "
            "of LoRAs read it. No existing file is overwritten.",
        ),
    ] = False
    txt_from: Annotated[
        str | None,
        typer.Option(
            "--txt-from",
            metavar="exact|any",
            help="With --txt: `exact` writes only prompts that the file itself carries (exact or "
            "carried), `any` also estimates.",
            show_default="any",
        ),
    ] = None
    prompt_only: Annotated[
        bool,
        typer.Option(
            "--prompt-only", "-1", help="Print the prompt alone, in one line for each image."
        ),
    ] = False

    def check(self, *, json: bool, explain: bool = False) -> None:
        """Raise `ConfigError` for options that contradict each other."""
        from imprompt.core.errors import ConfigError

        if self.prompt_only and (json or explain):
            other = "--json" if json else "--explain"
            raise ConfigError(f"--prompt-only and {other} exclude each other.", hint="Drop one.")
        if self.txt_from is not None and not self.txt:
            raise ConfigError("--txt-from requires --txt.", hint="Add --txt, or drop --txt-from.")
        if self.txt_from is not None and self.txt_from not in _TXT_FROM:
            raise ConfigError(
                f"--txt-from is {self.txt_from!r}.", hint=f"Name one of {', '.join(_TXT_FROM)}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions(PromptOptions):
    """Where prompts are written, and whether they alone are printed."""

    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Also write a CSV table with one row per image. A text that begins with =, +, - "
            "or @ gets an apostrophe in front, so that no spreadsheet runs it as a formula.",
        ),
    ] = None
    write_xmp: Annotated[
        Path | None,
        typer.Option(
            "--write-xmp",
            metavar="FOLDER",
            help="Also write a copy of each PNG, JPEG or WebP image to this folder, with the "
            "prompt as its XMP description. An image that has a description of its own is not "
            "copied; no existing file is overwritten.",
        ),
    ] = None

    def check_question(self, names: Sequence[str], text: str | None) -> None:
        """Raise `ConfigError` for options that contradict the question."""
        from imprompt.core.errors import ConfigError

        written = self.csv or self.txt or self.write_xmp
        if (written or self.prompt_only) and (text or not names):
            raise ConfigError(
                "--csv, --txt, --write-xmp and --prompt-only only work on images without a text.",
                hint="Leave them out to search for the text.",
            )
        if (self.txt or self.write_xmp) and STDIN in names:
            problem = (
                "--txt cannot write next to standard input."
                if self.txt
                else "--write-xmp cannot copy standard input."
            )
            raise ConfigError(problem, hint="Save the image to a file first.")


@dataclass(slots=True)
class AnswerReport:
    """Takes the results of one `query`, prints them, and writes them to files.

    Args:
        output: prints.
        form: of an answer on standard output.
        k: number of nearest prompts of an answer in full.
        explain: whether an answer shows each member's contribution.
        table: gets a row for each image.
        sidecars: get the prompts.
        copies: get the prompts, too.
        estimates: whether they get estimated prompts.
    """

    output: Output
    form: Literal["json", "full", "line", "prompt"]
    k: int
    explain: bool
    table: PromptTable | None = None
    sidecars: Sidecars | None = None
    copies: DescribedCopies | None = None
    estimates: bool = True

    def add(self, question: Question, result: Answer | ImpromptError) -> None:
        """Show an answer, or record why there is none."""
        from imprompt.core.errors import ImpromptError

        name = question_name(question)
        if isinstance(result, ImpromptError):
            answer, error = None, _named(result, question)
        else:
            answer, error = result.nearest(self.k), None
            if isinstance(question.image, bytes):
                answer = dataclasses.replace(answer, image=Path(name))
            self._print(answer)
            error = self._write_files(question.image, answer)
        if error is not None:
            self.output.fail(name, error)
        if self.table is not None:
            self.table.add(name, answer, error)

    def _print(self, answer: Answer) -> None:
        from imprompt.commands.answer_text import answer_line, one_line, show_answer

        if self.form == "json":
            self.output.line(answer.to_json(explain=self.explain))
        elif self.form == "prompt":
            self.output.text(one_line(answer.prompt))
        elif self.form == "line":
            self.output.text(answer_line(answer))
        else:
            show_answer(self.output, answer, k=self.k, explain=self.explain)

    def _write_files(self, image: Path | bytes | None, answer: Answer) -> ImpromptError | None:
        """Write the sidecar and the copy of an image; return the first error of the two."""
        from imprompt.commands.answer_text import one_line
        from imprompt.core.errors import ImpromptError

        if not isinstance(image, Path):
            return None
        failed: ImpromptError | None = None
        if self.sidecars is not None and (self.estimates or answer.how != "estimated"):
            try:
                self.sidecars.write(image, one_line(answer.prompt))
            except ImpromptError as error:
                failed = error
        if self.copies is not None:
            try:
                self.copies.write(image, answer)
            except ImpromptError as error:
                failed = failed or error
        return failed


@contextmanager
def reporting(
    output: Output, options: AnswerOptions, questions: Sequence[Question], *, k: int, explain: bool
) -> Iterator[AnswerReport]:
    """Open the report on `questions`; its table appears when the block succeeds.

    Raises:
        ConfigError, StorageFull: the table cannot be written.
    """
    from imprompt.commands.answer_files import prompt_table

    in_full = len(questions) <= FULL_IMAGES or questions[0].text or explain or output.verbose
    report = answer_report(output, options, k=k, explain=explain, in_lines=not in_full)
    if options.write_xmp is not None:
        report.copies = _copies_to(options.write_xmp, questions)
    with ExitStack() as stack:
        if options.csv is not None:
            _check_no_image(options.csv, questions)
            report.table = stack.enter_context(prompt_table(options.csv))
        if report.form == "line":
            output.note(f"More than {FULL_IMAGES} images: one line each; --verbose shows all.")
        yield report
    if report.table is not None:
        output.note(f"{report.table.n_rows} rows in {options.csv}.")


def answer_report(
    output: Output, options: PromptOptions, *, k: int, explain: bool = False, in_lines: bool
) -> AnswerReport:
    """Return a report without a table; `in_lines` gives each image one line, if nothing else is."""
    from imprompt.commands.answer_files import Sidecars

    report = AnswerReport(output, "full", k, explain, estimates=options.txt_from != "exact")
    if output.json:
        report.form = "json"
    elif options.prompt_only:
        report.form = "prompt"
    elif in_lines:
        report.form = "line"
    if options.txt:
        report.sidecars = Sidecars()
    return report


def _copies_to(folder: Path, questions: Sequence[Question]) -> DescribedCopies:
    """Return the copies that a folder gets.

    Raises:
        ConfigError: it is a file, or the folder of one of the images.
    """
    from imprompt.commands.answer_files import DescribedCopies
    from imprompt.core.errors import ConfigError

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--write-xmp {folder} is a file.", hint="Name a folder for the copies.")
    place = folder.resolve()
    parents = {question.image.parent for question in questions if isinstance(question.image, Path)}
    if any(parent.resolve() == place for parent in parents):
        raise ConfigError(
            f"--write-xmp {folder} is the folder of the images.",
            hint="Name another one for the copies.",
        )
    return DescribedCopies(folder)


def question_name(question: Question) -> str:
    """Return what a question is called in answers."""
    if isinstance(question.image, bytes):
        return STDIN
    return str(question.image or question.text or "")


def _named(error: ImpromptError, question: Question) -> ImpromptError:
    """Return an error about the bytes of standard input that says so."""
    from imprompt.core.errors import ImageRejected

    if isinstance(question.image, bytes) and isinstance(error, ImageRejected):
        return type(error)("standard input", error.reason, hint=error.hint)
    return error


def _check_no_image(csv: Path, questions: Sequence[Question]) -> None:
    from imprompt.core.errors import ConfigError

    if any(
        isinstance(image := question.image, Path)
        and image.name == csv.name
        and image.resolve() == csv.resolve()
        for question in questions
    ):
        raise ConfigError(f"--csv {csv} is one of the images.", hint="Name another file.")
