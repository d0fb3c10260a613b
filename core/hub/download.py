"""One file of the hub into its cache: resumed after a broken try, checked, and there whole or not at all.

The hub's own library begins anew after a kill and believes what it gets. Here the part that came is
kept beside the place where the hub's cache wants the content, `blobs/<digest>`, and is moved there
when its digest is the one that the hub states.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from imprompt.core.atomic_files import storage_errors, sync_folder
from imprompt.core.errors import StorageFull, WeightsRejected
from imprompt.core.text import size_text

_SHA256 = re.compile("[0-9a-f]{64}")
_GIT_SHA1 = re.compile("[0-9a-f]{40}")
_CHUNK_BYTES = 1 << 20


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(
        next(path for path in (folder, *folder.absolute().parents) if path.exists())
    ).free


def download(
    url: str,
    folder: Path,
    *,
    etag: str,
    size_bytes: int | None,
    label: str,
    announce: Callable[[str], None],
) -> None:
    """Bring the content of `url` to `folder/etag`; nothing is done where it is there, or where `etag` is no digest.

    A connection that breaks is taken up again five times; after that, or after a kill, the next
    call goes on where it stopped.

    Args:
        etag: the content's digest as the hub states it: sha256, or that of a git blob.
        label: names the file in errors.
        announce: is told how much is here already, and when another process is fetching the same
            file.

    Raises:
        WeightsRejected: what came has another digest; it is thrown away.
        StorageFull: the disk is full or may not be written; what came is kept.
        Exception: those of the hub's library, where the host refuses or stays silent.
    """
    blob = folder / etag
    if blob.exists() or not (_SHA256.fullmatch(etag) or _GIT_SHA1.fullmatch(etag)):
        return
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _sole_writer(partial_path(folder, etag), blob, announce=announce) as file:
            if file is None:
                return
            _fill(file, url, size_bytes=size_bytes, folder=folder, label=label, announce=announce)
            if _digest(file, etag) != etag:
                file.truncate(0)
                raise WeightsRejected(
                    f"{label} did not arrive whole: it has not the digest that the hub states.",
                    path=blob,
                    hint="Run the command again; it starts anew.",
                )
            Path(file.name).replace(blob)
            sync_folder(folder)


def hide_bars() -> None:
    """Draw no progress bars in this process; they are the hub's library's own, on a terminal only."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # documented, though not in its __all__

    disable_progress_bars()


def partial_path(folder: Path, etag: str) -> Path:
    """Where the part that came is kept."""
    return folder / f"{etag}.imprompt.incomplete"


@contextmanager
def _sole_writer(
    partial: Path, blob: Path, *, announce: Callable[[str], None]
) -> Iterator[BinaryIO | None]:
    """The unfinished file, open at its end and locked;

    None where another process finished it in the meantime.
    """
    while True:
        with partial.open("ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                announce("Another process is fetching this file; waiting for it.")
                fcntl.flock(file, fcntl.LOCK_EX)
            if blob.exists():
                partial.unlink(missing_ok=True)
                yield None
                return
            if partial.exists() and os.path.samestat(partial.stat(), os.fstat(file.fileno())):
                yield file
                return


def _fill(
    file: BinaryIO,
    url: str,
    *,
    size_bytes: int | None,
    folder: Path,
    label: str,
    announce: Callable[[str], None],
) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, though not in its __all__

    here = file.seek(0, os.SEEK_END)
    if size_bytes is not None:
        if here > size_bytes:
            file.truncate(0)
            here = 0
        free = free_bytes(folder)
        if free < size_bytes - here:
            raise StorageFull(
                f"{label} needs {size_text(size_bytes - here)} in {folder}, where {size_text(free)} are free.",
                hint="Free some space, or name another cache folder with HF_HOME.",
            )
    if here:
        announce(f"{size_text(here)} of it are here from an earlier try.")
    # The client follows the hub's redirects and keeps the user's token from other hosts.
    http_get(url, file, resume_size=here, headers=build_hf_headers(), expected_size=size_bytes)
    file.flush()
    os.fsync(file.fileno())


def _digest(file: BinaryIO, etag: str) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    # Small files are stored in git, whose digest is no protection, only a check:
    # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    digest = (
        hashlib.sha256()
        if _SHA256.fullmatch(etag)
        else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    )
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
