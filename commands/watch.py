"""`watch`: answer the images of a folder as they appear."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from imprompt.commands.answer_options import PromptOptions, answer_report
from imprompt.commands.ensemble_options import EnsembleOptions, tell_left_out
from imprompt.commands.index_options import IndexOptions, open_index
from imprompt.commands.options import EncoderName, IgnoreMetadata
from imprompt.commands.output import Output
from imprompt.commands.query import FilterOptions

_K = 10


def watch(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder that images appear in.")
    ],
    existing: Annotated[
        bool, typer.Option("--existing", help="First answer the images that are there already.")
    ] = False,
    filtering: FilterOptions,
    ignore_metadata: IgnoreMetadata = False,
    ensemble: EnsembleOptions,
    answers: PromptOptions,
    location: IndexOptions,
    encoder: EncoderName = None,
    output: Output,
) -> None:
    """Answer each new image in a folder, one line each, until you press Ctrl-C.

    Models are loaded once. Folders below it are watched, too; an image counts once it is written
    completely. The answers are those of `query`, also as JSON lines (--json), as the prompt alone
    (--prompt-only), or as text files beside the images (--txt). Images that cannot be read are
    reported at once and again at the end.
    """
    from imprompt.ensemble.estimates import ask
    from imprompt.images.folder_watch import FolderWatch
    from imprompt.retriever import Question, Retriever

    answers.check(json=output.json)
    filters = filtering.filters()
    watched = FolderWatch(folder, existing=existing, announce=output.note)
    report = answer_report(output, answers, k=_K, in_lines=True)
    n_images = 0
    with open_index(output, location, encoder=encoder) as index, _stopped_by_signals() as stop:
        loaded = ensemble.load(index, output)
        retriever = Retriever(index.version, loaded.neighbourhood.encoder)
        output.note(f"Watching {folder}. Ctrl-C ends it.")
        for images in watched.batches(stop):
            questions = [Question(image, ignore_metadata=ignore_metadata) for image in images]
            found = ask(questions, _K, retriever=retriever, ensemble=loaded, filters=filters)
            for question, result in zip(questions, found, strict=True):
                n_failures = len(output.failures)
                report.add(question, result)
                if len(output.failures) > n_failures and not output.json:
                    output.note(f"  {output.failures[-1][1]}")
                n_images += 1
                if stop.is_set():
                    break
    output.note(f"{n_images:,} {'image' if n_images == 1 else 'images'} answered.")
    output.close(total=n_images)
    tell_left_out(loaded)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Let Ctrl-C and a request to end stop the watch between two images, so that nothing is lost.

    A second Ctrl-C ends it at once.
    """
    stop = threading.Event()

    def end(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
