"""How vectors were made: with equal provenance, equal plans give equal bytes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

_ROOMS = ("core", "encoders", "ensemble", "images", "indexer", "retriever", "store")
_LIBRARIES = ("numpy", "onnxruntime", "torch", "tokenizers", "open_clip_torch")


@runtime_checkable
class TellsProvenance(Protocol):
    """An encoder that reports how it computes: backend, dtype, device, threads, batch size."""

    def provenance(self) -> Mapping[str, Any]: ...


def provenance_of(encoder: object) -> dict[str, Any]:
    """Return the encoder's provenance with this machine's processor and library versions."""
    provenance = dict(encoder.provenance()) if isinstance(encoder, TellsProvenance) else {}
    versions: dict[str, str] = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        **provenance,
        "processor": processor_name(),
        "system": platform.system(),
        "libraries": versions,
    }


def processor_name() -> str:
    """Return the processor's model if the system names it, else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def code_sha256() -> str:
    """Return 64 hex digits of all source that a worker may run: equal ones mean the same code."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(path for room in _ROOMS for path in (root / room).rglob("*.py")):
        digest.update(
            path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
        )
    return digest.hexdigest()


def imprompt_version() -> str:
    """Return the installed version, or "unreleased" when run from a folder without installing."""
    try:
        return metadata.version("imprompt")
    except metadata.PackageNotFoundError:
        return "unreleased"
