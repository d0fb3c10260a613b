"""Downloads one file into the hub's cache: resumed, checked, and complete or absent.

The hub's library starts over after a kill and does not check what it gets. Here an incomplete
download is kept next to its final path in the hub's cache, `blobs/<digest>`, and is renamed once
its digest matches the one that the hub states.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from imprompt.core.atomic_files import storage_errors, sync_folder
from imprompt.core.errors import StorageFull, WeightsRejected
from imprompt.core.text import size_text

_SHA256 = re.compile("[0-9a-f]{64}")
_GIT_SHA1 = re.compile("[0-9a-f]{40}")
_CHUNK_BYTES = 1 << 20


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder, which need not exist yet."""
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
    """Download `url` to `folder/etag`, unless it is there, or `etag` is not a digest.

    A broken connection is resumed up to five times; after that, or after a kill, the next call
    resumes the download.

    Args:
        etag: the content's digest as the hub states it: sha256, or that of a git blob.
        label: names the file in errors.
        announce: takes a line about a resumed download, or a download by another process.

    Raises:
        WeightsRejected: the content has another digest; it is deleted.
        StorageFull: the disk is full or may not be written; the incomplete download is kept.
        Exception: any of the hub's library, if the host refuses or does not answer.
    """
    blob = folder / etag
    if blob.exists() or not (_SHA256.fullmatch(etag) or _GIT_SHA1.fullmatch(etag)):
        return
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        partial = partial_path(folder, etag)
        with sole_writer(folder / f"{etag}.imprompt.lock", announce=announce):
            if blob.exists():
                partial.unlink(missing_ok=True)
                return
            with partial.open("ab+") as file:
                _fill(
                    file, url, size_bytes=size_bytes, folder=folder, label=label, announce=announce
                )
                if _digest(file, etag) != etag:
                    file.truncate(0)
                    raise WeightsRejected(
                        f"The download of {label} is corrupt: checksum mismatch.",
                        path=blob,
                        hint="Run the command again to download it anew.",
                    )
            partial.replace(blob)
            sync_folder(folder)


def hide_bars() -> None:
    """Turn off the progress bars that the hub's library draws on a terminal."""
    from huggingface_hub import utils

    utils.disable_progress_bars()  # type: ignore[attr-defined]  # documented, but not in __all__


def partial_path(folder: Path, etag: str) -> Path:
    """Return the path of an incomplete download."""
    return folder / f"{etag}.imprompt.incomplete"


@contextmanager
def sole_writer(path: Path, *, announce: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a download, after waiting for the process that has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a killed process
    try:
        lock.acquire(blocking=False)
    except Timeout:
        announce("Another process is fetching this file; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows `release` does it
            path.unlink()
        lock.release()


def _fill(
    file: BinaryIO,
    url: str,
    *,
    size_bytes: int | None,
    folder: Path,
    label: str,
    announce: Callable[[str], None],
) -> None:
    from huggingface_hub import utils

    kept = file.seek(0, os.SEEK_END)
    if size_bytes is not None:
        if kept > size_bytes:
            file.truncate(0)
            kept = 0
        free = free_bytes(folder)
        if free < size_bytes - kept:
            raise StorageFull(
                f"{label} needs {size_text(size_bytes - kept)} in {folder}, which has "
                f"{size_text(free)} free.",
                hint="Free some space, or name another cache folder with HF_HOME.",
            )
    # The client follows the hub's redirects and sends the user's token to no other host.
    headers = utils.build_hf_headers()  # type: ignore[attr-defined]  # documented as above
    go_on(file, url, headers=headers, size_bytes=size_bytes, announce=announce)


def go_on(
    file: BinaryIO,
    url: str,
    *,
    headers: Mapping[str, str],
    announce: Callable[[str], None],
    size_bytes: int | None = None,
) -> None:
    """Append what a file lacks of a download, and sync it.

    Raises:
        Exception: any of the hub's library, if the host refuses or does not answer.
    """
    from huggingface_hub.file_download import http_get

    kept = file.seek(0, os.SEEK_END)
    if kept:
        announce(f"Resuming after {size_text(kept)} of an earlier attempt.")
    http_get(url, file, resume_size=kept, headers={**headers}, expected_size=size_bytes)
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
