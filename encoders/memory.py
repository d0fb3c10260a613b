"""Whether an error means that the memory, of the machine or of its accelerator, is too small."""

from __future__ import annotations

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says on CUDA, on Linux and elsewhere; on the processor in a RuntimeError without a class of its own."""
_CLASS = "OutOfMemoryError"


def out_of_memory(error: Exception) -> bool:
    """True for MemoryError and for torch's complaints, on any device; needs no torch."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and (type(error).__name__ == _CLASS or any(words in str(error) for words in _WORDS))
