"""Hides from a process on Linux what Python lacks on Windows; to be imported first.

Only what Python itself lacks or forbids there is taken away: modules, functions, flags, descriptors
of folders, moving what is open. Paths, consoles and libraries stay those of Linux.
"""

from __future__ import annotations

import asyncio  # noqa: F401 before its modules lose what they need on Linux
import builtins
import ctypes
import errno
import io
import mmap
import os
import shutil
import signal
import stat
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 it has a lock of its own on Windows
import psutil  # noqa: F401 so has it its own functions

HIDDEN = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
MISSING = {
    os: (
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC"),
        *("fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid"),
        *("killpg", "mkfifo", "posix_fadvise", "posix_fallocate", "pread", "preadv", "pwrite"),
        *("pwritev", "readv", "sched_getaffinity", "sched_setaffinity", "setsid"),
        *("statvfs", "fstatvfs", "sysconf", "writev"),
    ),
    mmap: ("MAP_ANON", "MAP_ANONYMOUS", "PROT_READ", "PROT_WRITE"),  # torch imports the others
    signal: ("SIGALRM", "SIGHUP", "SIGPIPE", "SIGUSR1", "alarm", "pthread_sigmask"),
}

_REAL = {name: getattr(os, name) for name in ("open", "fsync", "stat", "scandir", "statvfs")}
_REAL |= {name: getattr(os, name) for name in ("rename", "replace", "unlink", "rmdir")}
_open_text = io.open


def hide_posix() -> None:
    """Take away what Windows lacks; libraries that were imported before keep what they have."""
    import fcntl

    get_flags = fcntl.fcntl
    for name in HIDDEN:
        sys.modules[name] = None  # type: ignore[assignment]  # so that importing it fails
    for module, names in MISSING.items():
        for name in names:
            delattr(module, name)
    for functions in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        functions.clear()
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    shutil.disk_usage = _disk_usage
    ctypes.CDLL = _Library  # type: ignore[misc]

    def fsync(descriptor: int) -> None:
        if get_flags(descriptor, 3) & os.O_ACCMODE == os.O_RDONLY:  # 3 is F_GETFL
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        _REAL["fsync"](descriptor)

    patched: dict[str, Callable[..., Any]] = {
        "open": _open,
        "stat": _stat,
        "scandir": _scandir,
        "fsync": fsync,
        "rename": _rename,
        "replace": _replace,
        "unlink": _unlink,
        "remove": _unlink,
        "rmdir": _rmdir,
    }
    for name, function in patched.items():
        setattr(os, name, function)
    builtins.open = io.open = _open_no_proc


def open_below(path: str | os.PathLike[str]) -> list[str]:
    """Return the files at or below a path that this process has open or mapped."""
    where = os.path.realpath(path)
    held = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing
            held.append(str(descriptor.readlink()))
    with _open_text("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        held += [line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/" in line]
    return [name for name in held if name == where or name.startswith(f"{where}/")]


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    descriptor: int = _REAL["open"](path, flags, mode)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return descriptor


def _stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    result: os.stat_result = _REAL["stat"](path, follow_symlinks=follow_symlinks)
    return result


def _scandir(path: Any = ".") -> Any:
    if isinstance(path, int):
        raise TypeError("scandir: path should be string, bytes, os.PathLike or None, not int")
    return _REAL["scandir"](path)


def _rename(source: Any, target: Any) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
    _refuse_if_open(source)
    _REAL["rename"](source, target)


def _replace(source: Any, target: Any) -> None:
    _refuse_if_open(source)
    _refuse_if_open(target)
    _REAL["replace"](source, target)


def _unlink(path: Any, *, dir_fd: int | None = None) -> None:
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if not os.lstat(path).st_mode & stat.S_IWUSR:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    _refuse_if_open(path)
    _REAL["unlink"](path)


def _rmdir(path: Any, *, dir_fd: int | None = None) -> None:
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    _refuse_if_open(path)
    _REAL["rmdir"](path)


def _refuse_if_open(path: Any) -> None:
    if held := open_below(path):
        raise PermissionError(errno.EACCES, f"a process uses {held[0]}", path)


def _open_no_proc(file: Any, *args: Any, **kwargs: Any) -> Any:
    if str(file).startswith("/proc/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
    return _open_text(file, *args, **kwargs)


def _disk_usage(path: Any) -> Any:
    found = _REAL["statvfs"](path)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return shutil._ntuple_diskusage(size, size - free, free)


class _Library(ctypes.CDLL):
    def __init__(self, name: str | None, *args: Any, **kwargs: Any) -> None:
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        super().__init__(name, *args, **kwargs)
