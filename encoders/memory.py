"""Whether an error means that the memory, of the machine or of its accelerator, is too small; and memory given back."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says on CUDA, on Linux and elsewhere; on the processor in a RuntimeError without a class of its own."""
_CLASS = "OutOfMemoryError"
_STATM = Path("/proc/self/statm")


def out_of_memory(error: Exception) -> bool:
    """True for MemoryError and for torch's complaints, on any device; needs no torch."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == _CLASS or any(words in str(error) for words in _WORDS)
    )


class FreedMemory:
    """What was freed and the C library still holds: given back to the system once this process has grown by `slack_bytes`.

    Every batch has another number of tokens, and oneDNN keeps something small for each. It comes to
    lie among the large intermediate results, and the freed room around it is not used again: 240
    batches through one layer left 965 MB resident, 298 after it was given back, which takes some
    milliseconds.
    """

    def __init__(self, slack_bytes: int) -> None:
        self._slack_bytes = slack_bytes
        self._settled_bytes: int | None = None
        self.most_bytes = 0
        """The most that this process was found to have for itself."""

    def look(self) -> None:
        """To be called between two batches; takes some microseconds where nothing is to be done."""
        own = own_bytes()
        self.most_bytes = max(self.most_bytes, own)
        if self._settled_bytes is None or own < self._settled_bytes:
            self._settled_bytes = own
        elif own > self._settled_bytes + self._slack_bytes:
            return_freed_memory()
            self._settled_bytes = own_bytes()


def own_bytes() -> int:
    """Resident memory of this process without what it maps of files;

    0 where the system does not say.
    """
    try:
        _, resident, shared = map(int, _STATM.read_bytes().split()[:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Give the system what was freed; nothing where the C library is not glibc."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
