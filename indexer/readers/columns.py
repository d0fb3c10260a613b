"""Which column of a table holds the prompts, and the fingerprint of a file that is read by it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from imprompt.core.atomic_files import sha256_file
from imprompt.core.errors import CorpusError
from imprompt.indexer.readers.rows import reading

DEFAULT_COLUMN = "prompt"
SUBMITTED_COLUMN = "n_submitted"
NSFW_COLUMN = "prompt_nsfw"
BESIDE_COLUMNS = (SUBMITTED_COLUMN, NSFW_COLUMN)
"""What is read beside the prompt where a table has it: never a column of prompts itself."""

_READERS = "readers 1"
"""Part of every fingerprint; raised when the idea of a row changes, so that a broken build never goes on across the change."""


def choose_column(
    path: Path, asked: str | None, columns: Sequence[str], *, texts: Sequence[str]
) -> str:
    """The column asked for, else `prompt`, else the only text column.

    Args:
        path: for the message.
        asked: what the user named; None leaves the choice to the file.
        columns: all that the file has.
        texts: those that hold text.

    Raises:
        CorpusError: the column is not there or not of text, or several could be meant; the columns
            there are stand in the message.
    """
    there = ", ".join(columns) or "none"
    wanted = DEFAULT_COLUMN if asked is None else asked
    if columns.count(wanted) > 1:
        raise CorpusError(
            f"{path} has {columns.count(wanted)} columns {wanted!r}.",
            path=path,
            hint="Give each a name of its own.",
        )
    if asked is not None or DEFAULT_COLUMN in columns:
        if wanted not in columns:
            raise CorpusError(
                f"{path} has no column {wanted!r}; it has: {there}.",
                path=path,
                hint="Name one of them with --column.",
            )
        if wanted not in texts:
            raise CorpusError(
                f"Column {wanted!r} of {path} does not hold text.",
                path=path,
                hint="Name another one with --column.",
            )
        return wanted
    if len(texts) == 1:
        return texts[0]
    raise CorpusError(
        f"{path} has no column {DEFAULT_COLUMN!r} and not just one of text; it has: {there}.",
        path=path,
        hint="Name the column of the prompts with --column.",
    )


def remembered(paths: Iterable[Path], digest: Callable[[], str]) -> Callable[[], str]:
    """`digest`, computed again only where one of the files has another length, time or place on the disk than at the last call.

    A build asks twice, before it reads and after, so that a corpus which changes under it is found
    out.
    """
    watched = tuple(paths)
    known: dict[tuple[object, ...], str] = {}

    def current() -> str:
        stamp = tuple(_stamp(path) for path in watched)
        if stamp not in known:
            known.clear()
            known[stamp] = digest()
        return known[stamp]

    return current


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def file_digest(path: Path, kind: str, column: str) -> str:
    """Fingerprint of a file's bytes as read by one reader; neither its path nor its times count.

    Raises:
        CorpusError: the file cannot be read.
    """
    with reading(path):
        content = sha256_file(path)
    return hashlib.sha256("\n".join((_READERS, kind, column, content)).encode()).hexdigest()
