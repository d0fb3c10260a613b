"""The files that `query` writes: a CSV table, a text file beside each image, described copies."""

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


class _FilesOfImages:
    """Files that are made from images, one from each.

    Nothing that exists is overwritten, and no link is followed. `_content` is what a file has of
    its image, `_states` says so of a file, and `_remedy` is for one that exists already.
    """

    _content: str
    _states: str
    _remedy: str

    def __init__(self) -> None:
        self._owners: dict[Path, Path] = {}

    def _check_free(self, path: Path, image: Path) -> None:
        """Raise `PartialFailure` if another image has written the file."""
        if (owner := self._owners.get(path)) is not None:
            raise PartialFailure(
                f"{path} {self._states} of {owner}; that of {image} was not written.",
                hint="Give each image a name of its own.",
            )

    def _write(self, path: Path, image: Path, content: bytes, *, same_is_done: bool) -> None:
        """Write a file that does not exist; one of the same content may be taken for it.

        Raises:
            PartialFailure: it exists, or cannot be made.
            StorageFull: the folder may not be written, or the disk is full.
        """
        try:
            with atomic_write(path, replace=False) as file:
                file.write(content)
        except FileExistsError as error:
            if not (same_is_done and _holds(path, content)):
                raise PartialFailure(
                    f"{path} already exists; the {self._content} of {image} was not written.",
                    hint=self._remedy,
                ) from error
        except OSError as error:
            raise _unusable(path, "written", error) from error
        self._owners[path] = image


class Sidecars(_FilesOfImages):
    """Text files beside images, which hold the prompt alone in one line, as trainers read them.

    A file that holds the prompt already is left as it is.
    """

    _content, _states = "prompt", "holds the prompt"
    _remedy = "Move it away to have it written."

    def write(self, image: Path, prompt: str) -> None:
        """Write the prompt of an image to NAME.txt beside it.

        Raises:
            PartialFailure: that file holds something else, another image has written it, or it
                cannot be made.
            StorageFull: the folder may not be written, or the disk is full.
        """
        sidecar = image.with_suffix(".txt")
        self._check_free(sidecar, image)
        self._write(sidecar, image, as_utf8(f"{prompt}\n").encode(), same_is_done=True)


class DescribedCopies(_FilesOfImages):
    """Copies of images with the answer in their XMP, in one folder.

    The prompt is the description that photo tools show. What the file itself says stays as it is,
    and no reader of prompts takes the description for the file's own: it is marked as an answer.
    """

    _content, _states = "copy", "is the copy"
    _remedy = "Name another folder, or move the file away."

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def write(self, image: Path, answer: Answer) -> None:
        """Write the copy of an image.

        Raises:
            PartialFailure: the copy exists, another image has written it, or the image cannot be
                read, or its format or its XMP does not allow it.
            StorageFull: the folder may not be written, or the disk is full.
        """
        from imprompt.images.metadata.xmp_writing import CannotDescribeError, with_description

        copy = self._folder / image.name
        self._check_free(copy, image)
        try:
            described = with_description(image.read_bytes(), answer.prompt, _about(answer))
        except CannotDescribeError as error:
            raise PartialFailure(f"{image} was not copied: {error}.") from error
        except OSError as error:
            raise _unusable(image, "read", error) from error
        self._write(copy, image, described, same_is_done=False)


def _unusable(path: Path, verb: str, error: OSError) -> PartialFailure:
    return PartialFailure(f"{path} cannot be {verb}: {error.strerror or error}.")


def _about(answer: Answer) -> dict[str, str]:
    """Return what a copy says about its description, by the names of XMP properties."""
    about: dict[str, str] = {"How": answer.how}
    if (estimate := answer.estimate) is not None:
        if estimate.confidence is not None:
            about["Confidence"] = f"{estimate.confidence:.4f}"
        about |= {"Encoder": answer.encoder, "Corpus": answer.corpus, "Version": answer.version}
    return {name: text for name, text in about.items() if text}


def _holds(path: Path, content: bytes) -> bool:
    """Return whether a regular file, no link, has exactly this content."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != len(content):
        return False
    return path.read_bytes() == content


def _cell(text: str) -> str:
    """Return the text as a spreadsheet shows it and does not run it: after an apostrophe."""
    return as_utf8(f"'{text}" if text.startswith(_FORMULA) else text)
