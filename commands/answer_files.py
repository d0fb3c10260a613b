"""The files that `query` writes its answers to: a CSV table, and a text file beside each image."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from imprompt.core.atomic_files import atomic_write, check_place, storage_errors
from imprompt.core.errors import PartialFailure
from imprompt.core.text import as_utf8

if TYPE_CHECKING:
    from imprompt.core.errors import ImpromptError
    from imprompt.retriever.answers import Answer

COLUMNS = ("image", "prompt", "how", "confidence", "close", "negative", "tool", "error")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""The beginnings of a cell that spreadsheets run as a formula."""


class PromptTable:
    """An open CSV table of answers; `n_rows` counts them."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.n_rows = 0
        self._path = path
        self._file = file
        self._rows = csv.writer(file)
        self._rows.writerow(COLUMNS)

    def add(self, image: str, answer: Answer | None, error: ImpromptError | None) -> None:
        """Write the row of an image: its answer, and what failed.

        Raises:
            StorageFull: the disk is full.
        """
        confidence, close = "", ""
        if answer is not None and (estimate := answer.estimate) is not None:
            confidence = "" if estimate.confidence is None else f"{estimate.confidence:.4f}"
            close = "" if estimate.close is None else str(estimate.close).lower()
        texts = (answer.prompt, answer.how) if answer else ("", "")
        origin = (answer.negative, answer.tool) if answer else ("", "")
        failed = str(error) if error else ""
        row = (image, *texts, confidence, close, *origin, failed)
        with storage_errors(self._path):
            self._rows.writerow([_cell(text) for text in row])
        self.n_rows += 1


@contextmanager
def prompt_table(path: Path) -> Iterator[PromptTable]:
    """Open a CSV table that appears at `path` when the block succeeds.

    Until then its rows lie in a file without a name in the same folder.

    Raises:
        ConfigError, StorageFull: the file cannot be written (at once, where that can be told).
    """
    from io import TextIOWrapper
    from shutil import copyfileobj
    from tempfile import TemporaryFile

    check_place(path)
    with storage_errors(path):
        file = TemporaryFile("w+b", dir=path.parent)  # noqa: SIM115 closed below
    with file:
        text = TextIOWrapper(file, "utf-8", newline="")
        yield PromptTable(path, text)
        with storage_errors(path):
            text.flush()
        file.seek(0)
        with atomic_write(path) as whole:
            copyfileobj(file, whole)


class Sidecars:
    """Text files beside images, which hold the prompt alone in one line, as trainers read them.

    Nothing that exists is overwritten, and no link is followed.
    """

    def __init__(self) -> None:
        self._owners: dict[Path, Path] = {}

    def write(self, image: Path, prompt: str) -> None:
        """Write the prompt of an image to NAME.txt beside it.

        Raises:
            PartialFailure: that file exists, another image has written it, or it cannot be made.
            StorageFull: the folder may not be written, or the disk is full.
        """
        sidecar = image.with_suffix(".txt")
        if (owner := self._owners.get(sidecar)) is not None:
            raise PartialFailure(
                f"{sidecar} holds the prompt of {owner}; that of {image} was not written.",
                hint="Give each image a name of its own.",
            )
        try:
            with atomic_write(sidecar, replace=False) as file:
                file.write(as_utf8(f"{prompt}\n").encode())
        except FileExistsError as error:
            raise PartialFailure(
                f"{sidecar} already exists; the prompt of {image} was not written.",
                hint="Move it away to have it written.",
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise PartialFailure(f"{sidecar} cannot be written: {reason}.") from error
        self._owners[sidecar] = image


def _cell(text: str) -> str:
    """Return the text as a spreadsheet shows it and does not run it: after an apostrophe."""
    return as_utf8(f"'{text}" if text.startswith(_FORMULA) else text)
