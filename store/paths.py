"""Access to files that an index names: known forms, regular files, never through a link.

An index may come from anybody. What its manifest, `CURRENT` or a journal names is opened here and
nowhere else: relative to a descriptor of its folder, part by part, without following links
(`O_NOFOLLOW`) and without waiting for a pipe (`O_NONBLOCK`). DuckDB and FAISS open by path; they
get only paths that were looked at here. Windows has no such descriptors and flags: there each part
of a path is looked at before it is used.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from imprompt.core.errors import Checksum, ConfigError
from imprompt.core.text import as_utf8
from imprompt.store import layout

_SPACE = r"(?!\.)[A-Za-z0-9_.~%-]{1,255}"
_FILE = re.compile(
    rf"{'|'.join(map(re.escape, (layout.MANIFEST, layout.PLAN, layout.JOURNAL, layout.PROMPTS)))}"
    rf"|vectors/{_SPACE}/([0-9]{{5,12}}\.npy|rows\.crc32)|index/{_SPACE}\.(faiss|crc32)",
    re.ASCII,
)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,199}", re.ASCII)
_ROOT = Path()
_OURS = frozenset(
    path(_ROOT).name
    for path in (
        layout.current_path,
        layout.lock_path,
        layout.versions_folder,
        layout.staging_root,
        layout.older_versions_folder,
    )
)
_NOBODYS = frozenset({"lost+found", "Thumbs.db", "desktop.ini"})
_CHUNK_BYTES = 1 << 20
_BY_DESCRIPTOR = {os.open, os.stat} <= os.supports_dir_fd and os.scandir in os.supports_fd
_OPEN = 0
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _OPEN |= getattr(os, _flag, 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _OPEN
_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT, the link to a folder that Windows has besides
_SEEKING = threading.Lock()
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Folder: TypeAlias = int | str
"""An open folder: its descriptor, or its path where there are none for folders."""


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
    here = _open_folder(folder, str(folder), follow=root)
    try:
        for part in parents:
            inner = _open_folder(folder / file, part, within=here)
            _close(here)
            here = inner
        descriptor = _open(folder / file, name, flags | _OPEN, mode=0o644, within=here)
    finally:
        _close(here)
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


def read_at(descriptor: int, n_bytes: int, offset: int) -> bytes:
    """Return up to `n_bytes` of an open file from an offset on; several threads may read one."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, n_bytes, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, n_bytes)


@contextmanager
def folders_of(folder: Path) -> Iterator[dict[str, Folder]]:
    """Keep a version's folders open, by relative path, for `size_of`."""
    opened = {"": _open_folder(folder, str(folder))}
    try:
        yield opened
    finally:
        for inner in opened.values():
            _close(inner)


def size_of(folder: Path, file: str, opened: dict[str, Folder]) -> int:
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
            opened[above] = _open_folder(folder / file, above, within=opened[""])
        opened[parent] = _open_folder(folder / file, last, within=opened[above])
    found = _stat(name, opened[parent])
    if not stat.S_ISREG(mode := _mode(found)):
        raise _refused(folder / file, _kind(mode))
    return found.st_size


def check_tree(folder: Path) -> None:
    """Raise `Checksum` if anything below a folder is neither a regular file nor a folder.

    A missing folder passes.
    """
    try:
        mode = _mode(os.lstat(folder))
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        raise _refused(folder, _kind(mode))
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


def refuse_other_files(root: Path) -> None:
    """Check that no index would be laid among files of the user's.

    Hidden files and what file systems and Windows make do not count.

    Raises:
        ConfigError: the folder holds other files, and no index.
    """
    try:
        names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError:  # it is missing, or what opens it says why it cannot be used
        return
    others = [name for name in names if name not in _NOBODYS]
    if others and _OURS.isdisjoint(names):
        listed = ", ".join(map(as_utf8, others[:3])) + (", …" if len(others) > 3 else "")
        raise ConfigError(
            f"{root} holds other files ({listed}) and no index.",
            hint=f"Name a folder for the index alone, such as {root / 'index'}",
        )


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """Return (path, whether it is a link) of the folders and links in a folder, by name.

    Raises:
        Checksum: the folder itself is a link, or not a folder.
    """
    try:
        opened = _open_folder(folder, str(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        with os.scandir(opened) as found:
            kinds = {
                entry.name: entry.is_symlink()
                for entry in found
                if entry.is_symlink() or entry.is_dir()
            }
    finally:
        _close(opened)
    return [(folder / name, kinds[name]) for name in sorted(kinds)]


def _entries(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield (path, mode) of everything below a folder; links are not followed."""
    pending = [folder]
    while pending:
        here = pending.pop()
        with os.scandir(here) as found:
            for entry in found:
                mode = _mode(entry.stat(follow_symlinks=False))
                yield Path(entry.path), mode
                if stat.S_ISDIR(mode):
                    pending.append(Path(entry.path))


def _open_folder(
    path: Path, name: str, *, within: Folder | None = None, follow: bool = False
) -> Folder:
    """Open a folder, not through a link unless it may `follow`; raise `Checksum` as `_open`."""
    if _BY_DESCRIPTOR:
        flags = _FOLDER & ~os.O_NOFOLLOW if follow else _FOLDER
        return _open(path, name, flags, within=within)
    place = name if within is None else f"{within}/{name}"
    mode = Path(place).stat().st_mode if follow else _mode(_stat(place))
    if not stat.S_ISDIR(mode):
        raise _refused(path, _kind(mode))
    return place


def _close(folder: Folder) -> None:
    if isinstance(folder, int):
        os.close(folder)


def _open(path: Path, name: str, flags: int, *, mode: int = 0, within: Folder | None = None) -> int:
    """Open with `os.open`; raise `Checksum`, naming `path`, if it is not a file or folder."""
    if isinstance(within, str):
        name, within = f"{within}/{name}", None
        with suppress(FileNotFoundError):
            kind = _mode(os.lstat(name))
            if not stat.S_ISREG(kind):
                raise _refused(path, _kind(kind))
    try:
        return os.open(name, flags, mode, dir_fd=within)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.EMLINK):
            raise
        try:
            kind = _mode(_stat(name, within))
        except OSError:
            raise error from None
        if stat.S_ISREG(kind):
            raise
        raise _refused(path, _kind(kind)) from error


def _stat(name: str, within: Folder | None = None) -> os.stat_result:
    """Return the state of a file or folder, not of what a link leads to."""
    if isinstance(within, str):
        name, within = f"{within}/{name}", None
    return os.stat(name, dir_fd=within, follow_symlinks=False)


def _mode(found: os.stat_result) -> int:
    """Return the mode; that of a link for Windows' other links to folders."""
    is_junction = getattr(found, "st_reparse_tag", 0) == _JUNCTION
    return stat.S_IFLNK if is_junction else found.st_mode


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _refused(path: Path, kind: str) -> Checksum:
    return Checksum(
        f"{path} is not a file of an index: it is {kind}, or its path leads through one.",
        path=path,
        hint=layout.VERIFY,
    )
