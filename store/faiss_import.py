"""FAISS, imported at its first use; if that fails, one line says why."""

from __future__ import annotations

import os
from typing import Any

from imprompt.core.errors import ConfigError, first_line
from imprompt.core.pip_lines import pip_install

LEVEL_VARIABLE = "FAISS_SIMD_LEVEL"
"""FAISS has code for several instruction sets and takes the best one, unless this names another."""

# Level of FAISS: what numpy calls the last instruction set that it needs; "" where every processor
# has it.
_NEEDED = {
    "NONE": "",
    "AVX2": "AVX2",
    "AVX512": "AVX512_SKX",
    "AVX512_VPOPCNT": "AVX512_ICL",
    "AVX512_SPR": "AVX512_SPR",
    "ARM_NEON": "ASIMD",
    "ARM_SVE": "SVE",
}


def import_faiss() -> Any:
    """Return the module `faiss`, of faiss-cpu or faiss-gpu.

    Raises:
        ConfigError: it is not installed or cannot be loaded, or it is told to use instructions that
            this processor lacks, with which it would end the process.
    """
    _check_level(os.environ.get(LEVEL_VARIABLE, ""))
    try:
        import faiss
    except (ImportError, OSError, RuntimeError, SystemExit) as error:
        # Its loader ends the process where its own library is missing, and faiss-gpu raises
        # RuntimeError without CUDA's.
        raise ConfigError(
            f"FAISS cannot be loaded: {_reason(error)}.", hint=_remedy(error)
        ) from error
    return faiss


def has_inverted_files() -> bool:
    """Return whether FAISS can open inverted files: those built for Windows cannot."""
    return hasattr(import_faiss(), "OnDiskInvertedLists")


def require_inverted_files() -> None:
    """Raise `ConfigError` where FAISS cannot open inverted files."""
    if not has_inverted_files():
        raise ConfigError(
            "FAISS for this system cannot open an inverted file.",
            hint="Build the index with --index-factory SQfp16, which scans all rows, or use WSL2.",
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "faiss":
        return "it is not installed"
    if isinstance(error, SystemExit):
        return "its own library is missing"
    return first_line(error)


def _remedy(error: BaseException) -> str:
    if isinstance(error, RuntimeError):
        return (
            "Install what it names, or faiss-cpu in its place: uninstall faiss-gpu, then "
            f"{pip_install('faiss-cpu')}"
        )
    return (
        f"Install exactly one of the two: {pip_install('faiss-cpu')}, or faiss-gpu for NVIDIA GPUs."
    )


def _check_level(level: str) -> None:
    """Raise `ConfigError` if the variable names an unknown level, or one the processor lacks."""
    if not level:
        return
    from numpy._core._multiarray_umath import __cpu_features__ as features  # type: ignore[import-not-found] # a compiled file

    hint = f"Unset {LEVEL_VARIABLE}: FAISS chooses the best that the processor has."
    if level not in _NEEDED:
        raise ConfigError(
            f"{LEVEL_VARIABLE} is {level!r}; FAISS knows {', '.join(_NEEDED)}.", hint=hint
        )
    if (needed := _NEEDED[level]) and not features.get(needed, False):
        raise ConfigError(
            f"{LEVEL_VARIABLE} is {level}, and this processor has no {needed}.", hint=hint
        )
