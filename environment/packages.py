"""Which of the packages that the project requires are installed; none of them is imported."""

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
from packaging.utils import canonicalize_name

PROJECT = "imprompt"
_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_FAISS = {"cpu", "gpu"}
"""The extras with FAISS; exactly one of them is needed."""
_PACKAGES = {"faiss": "faiss-cpu", "open_clip": "open_clip_torch", "sklearn": "scikit-learn"}
"""The packages of modules that have another name."""


class PackageState(msgspec.Struct, frozen=True):
    """A requirement of an extra ("" for the project itself), and the installed version.

    `version` is "" if the package is not installed.
    """

    extra: str
    requirement: str
    version: str
    fits: bool


def package_states() -> list[PackageState]:
    """Return the state of every requirement of the project, in the order of pyproject.toml.

    Empty where neither pyproject.toml nor the metadata of an installation is found.
    """
    return [_state(extra, requirement) for extra, requirement in _requirements()]


def lacking(states: list[PackageState], extra: str) -> list[PackageState]:
    """Return the requirements that an extra lacks; for "", also one of the two FAISS packages."""
    absent = [state for state in states if state.extra == extra and not state.fits]
    if extra and extra not in _FAISS:
        return absent
    has_faiss = any(state.fits for state in states if state.extra in _FAISS)
    if extra:
        return [] if has_faiss else absent
    if has_faiss:
        return absent
    return [*absent, *(state for state in states if state.extra == "cpu")]


def both_faiss(states: list[PackageState]) -> bool:
    """Return whether both FAISS packages are installed; they overwrite each other's files."""
    return all(any(state.version for state in states if state.extra == extra) for extra in _FAISS)


def loading_problems(modules: Sequence[str]) -> dict[str, str]:
    """Return for each module why it cannot be imported, in one line, or "" if it can.

    Each is imported in a process of its own, because a library that is built for another processor
    crashes the process that imports it.
    """
    tries = {
        module: subprocess.Popen(  # noqa: S603 our interpreter, with names from the code
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


def extra_with(module: str) -> str:
    """Return the first extra that brings a module; "cpu" for what imprompt always needs."""
    name = module.partition(".")[0]
    wanted = canonicalize_name(_PACKAGES.get(name, name))
    for extra, requirement in _requirements():
        if canonicalize_name(requirement.name) == wanted:
            return extra or "cpu"
    return "cpu"


def _requirements() -> Iterator[tuple[str, Requirement]]:
    if _PYPROJECT.is_file():
        project = tomllib.loads(_PYPROJECT.read_text("utf-8"))["project"]
        groups = {"": project["dependencies"], **project["optional-dependencies"]}
        named = ((extra, Requirement(text)) for extra, texts in groups.items() for text in texts)
        yield from (
            (extra, requirement) for extra, requirement in named if requirement.name != PROJECT
        )  # an extra that includes another
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
