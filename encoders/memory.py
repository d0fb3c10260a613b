"""Whether an error means that the memory, of the machine or of its accelerator, is too small; and memory given back."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says on CUDA, on Linux and elsewhere; on the processor in a RuntimeError without a class of its own."""
_CLASS = "OutOfMemoryError"


def out_of_memory(error: Exception) -> bool:
    """True for MemoryError and for torch's complaints, on any device; needs no torch."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and (type(error).__name__ == _CLASS or any(words in str(error) for words in _WORDS))


def return_freed_memory() -> None:
    """Give the system what was freed and the C library still holds; nothing where that is not glibc.

    Every batch has another number of tokens, and oneDNN keeps something small for each. It comes to lie among the large
    intermediate results, and the freed room around it is not used again: 240 batches through one layer left 965 MB resident, 298
    after this, which takes some milliseconds.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
