"""Describe the machine of a measurement; every result file begins with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def machine(*packages: str) -> dict[str, str | int]:
    """Return processor, cores, memory, Python, commit, and the versions of `packages`."""
    cpu = _field("/proc/cpuinfo", "model name") or platform.processor()
    memory_kib = int(_field("/proc/meminfo", "MemTotal").removesuffix("kB") or 0)
    flags = _field("/proc/cpuinfo", "flags").split()
    changes = "+changes" if _git("status", "--porcelain", "-uno") else ""
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "avx512": "yes" if "avx512f" in flags else "no",
        "memory_gib": round(memory_kib / 2**20),
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short", "HEAD") + changes,
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _field(path: str, name: str) -> str:
    """Return the first value of `name: value` in a file of /proc, empty if there is none."""
    lines = Path(path).read_text("utf-8").splitlines() if Path(path).exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "")


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
