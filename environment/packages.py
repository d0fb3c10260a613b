"""Which of the packages that the project asks for are installed, told without importing any."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from packaging.requirements import Requirement

PROJECT = "imprompt"
_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_FAISS = {"cpu", "gpu"}
"""Extras of which exactly one is needed."""


class PackageState(msgspec.Struct, frozen=True):
    """One requirement of one extra ("" for what is always needed):

    `version` is what is installed, "" for nothing.
    """

    extra: str
    requirement: str
    version: str
    fits: bool


def package_states() -> list[PackageState]:
    """Every requirement of the project, in its own order; none where neither the project's file nor its metadata is here."""
    return [_state(extra, requirement) for extra, requirement in _requirements()]


def lacking(states: list[PackageState], extra: str) -> list[PackageState]:
    """What an extra still needs;

    "" needs one of the two kinds of FAISS, too, which stand for each other.
    """
    own = [state for state in states if state.extra == extra and not state.fits]
    if extra and extra not in _FAISS:
        return own
    has_faiss = any(state.fits for state in states if state.extra in _FAISS)
    if extra:
        return [] if has_faiss else own
    return own if has_faiss else [*own, *(state for state in states if state.extra == "cpu")]


def both_faiss(states: list[PackageState]) -> bool:
    """Whether both kinds of FAISS are installed: they share a folder, and what is imported is either's."""
    return all(any(state.version for state in states if state.extra == extra) for extra in _FAISS)


def pip_line(extra: str) -> str:
    """The command that brings an extra, or the project itself."""
    extras = f"[{extra}]" if extra else ""
    where = f".{extras}" if _PYPROJECT.is_file() else f"{PROJECT}{extras}"
    return f"pip install '{where}'"


def loading_problems(modules: Sequence[str]) -> dict[str, str]:
    """Why each of these modules cannot be imported, in one line, "" where it can; told by processes that try, side by side.

    A library that is built for another processor ends the process that imports it.
    """
    tries = {
        module: subprocess.Popen(  # noqa: S603 our own interpreter, with names from the code
            [sys.executable, "-c", f"import {module}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for module in modules
    }
    problems = {}
    for module, process in tries.items():
        lines = process.communicate()[1].strip().splitlines()
        if process.returncode < 0:
            problems[module] = (
                f"importing it ends the process ({signal.strsignal(-process.returncode)})"
            )
        else:
            reason = lines[-1].rstrip(".") if lines else f"exit code {process.returncode}"
            problems[module] = reason if process.returncode else ""
    return problems


def _requirements() -> Iterator[tuple[str, Requirement]]:
    if _PYPROJECT.is_file():
        project = tomllib.loads(_PYPROJECT.read_text("utf-8"))["project"]
        groups = {"": project["dependencies"], **project["optional-dependencies"]}
        named = ((extra, Requirement(text)) for extra, texts in groups.items() for text in texts)
        yield from (
            (extra, requirement) for extra, requirement in named if requirement.name != PROJECT
        )  # an extra that takes in another
        return
    try:
        metadata = importlib.metadata.metadata(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        return
    extras = metadata.get_all("Provides-Extra") or []
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        for extra in ("", *extras):
            if (
                requirement.name != PROJECT
                and _asked_for(requirement, extra)
                and (not extra or not _asked_for(requirement, ""))
            ):
                yield extra, requirement


def _asked_for(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _state(extra: str, requirement: Requirement) -> PackageState:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    wanted = f"{requirement.name}{requirement.specifier}"
    return PackageState(
        extra,
        wanted,
        version,
        bool(version) and requirement.specifier.contains(version, prereleases=True),
    )
