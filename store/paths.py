"""Access to files that an index names: known forms, regular files, never through a link.

An index may come from anybody. What its manifest, `CURRENT` or a journal names is opened here and
nowhere else: relative to a descriptor of its folder, part by part, without following links
(`O_NOFOLLOW`) and without waiting for a pipe (`O_NONBLOCK`). DuckDB and FAISS open by path; they
get only paths that were looked at here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imprompt.core.errors import Checksum
from imprompt.store import layout

_SPACE = r"(?!\.)[A-Za-z0-9_.~%-]{1,255}"
_FILE = re.compile(
    rf"{'|'.join(map(re.escape, (layout.MANIFEST, layout.PLAN, layout.JOURNAL, layout.PROMPTS)))}"
    rf"|vectors/{_SPACE}/([0-9]{{5,12}}\.npy|rows\.crc32)|index/{_SPACE}\.(faiss|crc32)",
    re.ASCII,
)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,199}", re.ASCII)
_CHUNK_BYTES = 1 << 20
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | _OPEN
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_file_of_version(file: str) -> bool:
    """Return whether a version may have a file of this path; see `imprompt.store.layout`."""
    return _FILE.fullmatch(file) is not None


def is_version(name: str) -> bool:
    """Return whether a version may have this name."""
    return _VERSION.fullmatch(name) is not None


def open_file(folder: Path, file: str, *, flags: int = os.O_RDONLY, root: bool = False) -> int:
    """Return a descriptor of a regular file below a folder of the index.

    Args:
        folder: not itself a link, unless it is the `root` that a user named.
        file: relative, with "/" between its parts, of which none is a link.
        flags: of `os.open`; a file that is opened for writing must have no other name.

    Raises:
        Checksum: it, or a folder on the way, is a link, or it is not a regular file.
        FileNotFoundError: it is not there.
        OSError: it cannot be opened.
    """
    *parents, name = file.split("/")
    here = _open(folder, str(folder), _FOLDER & ~os.O_NOFOLLOW if root else _FOLDER)
    try:
        for part in parents:
            inner = _open(folder / file, part, _FOLDER, within=here)
            os.close(here)
            here = inner
        descriptor = _open(folder / file, name, flags | _OPEN, mode=0o644, within=here)
    finally:
        os.close(here)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(folder / file, _kind(found.st_mode))
        if flags & (os.O_WRONLY | os.O_RDWR) and found.st_nlink > 1:
            raise _refused(folder / file, "a second name of another file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(folder: Path, file: str, *, most_bytes: int, root: bool = False) -> bytes:
    """Return the bytes of a regular file below a folder of the index.

    Raises:
        Checksum: it is a link, not a regular file, or longer than `most_bytes`.
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
    """
    with os.fdopen(open_file(folder, file, root=root), "rb") as opened:
        return read_descriptor(opened.fileno(), folder / file, most_bytes=most_bytes)


def hash_file(folder: Path, file: str) -> tuple[int, str]:
    """Return (length, sha256) of a regular file below a folder of the index.

    Raises:
        Checksum: it is a link, or not a regular file.
        OSError: it is not there, or cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with os.fdopen(open_file(folder, file), "rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def has_content(folder: Path, file: str, *, size: int, sha256: str) -> bool:
    """Return whether a file has this length and hash; reads all of it."""
    try:
        return hash_file(folder, file) == (size, sha256)
    except (Checksum, OSError):
        return False


def read_descriptor(descriptor: int, path: Path, *, most_bytes: int) -> bytes:
    """Return all bytes of an open file.

    Raises:
        Checksum: they are more than `most_bytes`.
    """
    size = os.fstat(descriptor).st_size
    if size > most_bytes:
        raise Checksum(
            f"{path} has {size} bytes; at most {most_bytes} are read.",
            path=path,
            hint=layout.VERIFY,
        )
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(most_bytes + 1)


@contextmanager
def folders_of(folder: Path) -> Iterator[dict[str, int]]:
    """Keep descriptors of a version's folders open, by relative path, for `size_of`."""
    opened = {"": _open(folder, str(folder), _FOLDER)}
    try:
        yield opened
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def size_of(folder: Path, file: str, opened: dict[str, int]) -> int:
    """Return the length of a regular file in bytes, in a third of the time of opening it.

    Args:
        opened: from `folders_of(folder)`.

    Raises:
        Checksum: it, or a folder on the way, is a link, or it is not a regular file.
        OSError: it is not there, or cannot be looked at.
    """
    parent, _, name = file.rpartition("/")
    if parent not in opened:
        above, _, last = parent.rpartition("/")
        if above not in opened:
            opened[above] = _open(folder / file, above, _FOLDER, within=opened[""])
        opened[parent] = _open(folder / file, last, _FOLDER, within=opened[above])
    found = os.stat(name, dir_fd=opened[parent], follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise _refused(folder / file, _kind(found.st_mode))
    return found.st_size


def check_tree(folder: Path) -> None:
    """Raise `Checksum` if anything below a folder is neither a regular file nor a folder.

    A missing folder passes.
    """
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(folder, _kind(found.st_mode))
    for path, kind in _entries(folder):
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise _refused(path, _kind(kind))


def others_in(folder: Path, known: Iterable[str]) -> Iterator[str]:
    """Yield the relative paths below a folder that are not `known`, in order; folders left out."""
    there = {*known}
    found = (
        path.relative_to(folder).as_posix()
        for path, kind in _entries(folder)
        if not stat.S_ISDIR(kind)
    )
    yield from sorted(file for file in found if file not in there)


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """Return (path, whether it is a link) of the folders and links in a folder, by name.

    Raises:
        Checksum: the folder itself is a link, or not a folder.
    """
    try:
        descriptor = _open(folder, str(folder), _FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        with os.scandir(descriptor) as found:
            kinds = {
                entry.name: entry.is_symlink()
                for entry in found
                if entry.is_symlink() or entry.is_dir()
            }
    finally:
        os.close(descriptor)
    return [(folder / name, kinds[name]) for name in sorted(kinds)]


def _entries(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield (path, mode) of everything below a folder; links are not followed."""
    pending = [folder]
    while pending:
        here = pending.pop()
        with os.scandir(here) as found:
            for entry in found:
                mode = entry.stat(follow_symlinks=False).st_mode
                yield Path(entry.path), mode
                if stat.S_ISDIR(mode):
                    pending.append(Path(entry.path))


def _open(path: Path, name: str, flags: int, *, mode: int = 0, within: int | None = None) -> int:
    """Open with `os.open`; raise `Checksum`, naming `path`, if it is not a file or folder."""
    try:
        return os.open(name, flags, mode, dir_fd=within)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.EMLINK):
            raise
        try:
            kind = os.stat(name, dir_fd=within, follow_symlinks=False).st_mode
        except OSError:
            raise error from None
        if stat.S_ISREG(kind):
            raise
        raise _refused(path, _kind(kind)) from error


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _refused(path: Path, kind: str) -> Checksum:
    return Checksum(
        f"{path} is not a file of an index: it is {kind}, or its path leads through one.",
        path=path,
        hint=layout.VERIFY,
    )
