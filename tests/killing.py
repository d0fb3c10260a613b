"""Kill a program at a named point, by wrapping the product from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def before(owner: Any, name: str, *, call: int = 1) -> None:
    """Die when `owner.name` is called for the n-th time."""
    wrapped, calls = getattr(owner, name), [0]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            die()
        return wrapped(*args, **kwargs)

    setattr(owner, name, wrapper)


def after(owner: Any, name: str, *, call: int = 1) -> None:
    """Die when the n-th call of `owner.name` has returned."""
    wrapped, calls = getattr(owner, name), [0]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        result = wrapped(*args, **kwargs)
        if calls[0] == call:
            die()
        return result

    setattr(owner, name, wrapper)


def in_the_middle_of_a_file(module: Any, *, call: int) -> None:
    """Die while the n-th file of a module is being written."""
    atomic_write, calls = module.atomic_write, [0]

    @contextmanager
    def torn(path: Path) -> Iterator[IO[bytes]]:
        calls[0] += 1
        with atomic_write(path) as file:
            if calls[0] == call:
                file.write(b"begun and no more")
                file.flush()
                die()
            yield file

    module.atomic_write = torn
