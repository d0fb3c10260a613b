"""The pip commands that messages name: right for a clone and for an installed package."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

_ROOT = Path(__file__).resolve().parent.parent


def pip_install(what: str) -> str:
    """Return the command that installs something for the Python that runs.

    The command is `pip` only where that is this Python's: in an environment that is not activated,
    or has no pip of its own, another one would be meant.
    """
    python = Path(sys.executable)
    found = shutil.which("pip")
    if found is not None and Path(found).absolute().parent == python.absolute().parent:
        return f"pip install {what}"
    return f"{quote(_shortest(python))} -m pip install {what}"


def install_extra(extra: str) -> str:
    """Return the command that installs an extra of imprompt, or imprompt itself for "".

    In a clone it installs the clone, at the versions that were tested together.
    """
    extras = f"[{extra}]" if extra else ""
    if not (_ROOT / "pyproject.toml").is_file():
        return pip_install(f"'imprompt{extras}'")
    constraints = _shortest(_ROOT / "constraints.txt")
    clone = _shortest(_ROOT)
    return pip_install(f"-c {quote(constraints)} -e '{clone}{extras}'")


def _shortest(path: Path) -> str:
    """Return a path as seen from the working folder if it lies below it, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def missing_package(error: ModuleNotFoundError, *, extra: str = "cpu") -> str:
    """Return the line for a user whose Python lacks a package.

    Args:
        extra: what to install; the default brings what imprompt always needs.
    """
    environment = _ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    what = "what imprompt needs" if extra == "cpu" else f"the extra {extra}"
    remedy = f"install {what}: {install_extra(extra)}"
    if environment.is_file() and Path(sys.prefix) != _ROOT / ".venv":
        remedy = f"use the Python of this clone, {quote(_shortest(environment))}, or {remedy}"
    return f"{sys.executable} has no package {error.name}: {remedy}"
