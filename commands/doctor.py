"""`doctor`: show what is installed, what is missing, and the command that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from imprompt.commands.options import IndexFolder, Offline
from imprompt.commands.output import Output, grid
from imprompt.core.errors import ConfigError
from imprompt.core.text import size_text

if TYPE_CHECKING:
    from imprompt.environment.diagnosis import Diagnosis, IndexState, ModelSetState
    from imprompt.environment.packages import PackageState


def doctor(
    *, ctx: typer.Context, index: IndexFolder = None, offline: Offline = False, output: Output
) -> None:
    """Check the installation: packages, models, memory, the index, and what is missing.

    Says first whether imprompt is ready, or what keeps it from that; --verbose lists every package,
    file and folder. Never uses the network. Exits with 0 if the default blend config can run,
    otherwise with the code of the first problem.
    """
    from imprompt.core.settings import settings
    from imprompt.environment.diagnosis import diagnose

    known = [ctx.obj] if isinstance(ctx.obj, ConfigError) else []  # about the file of defaults
    diagnosis, errors = diagnose(settings(index=index, offline=offline), known=known)
    if output.json:
        output.line(diagnosis)
    else:
        _show(output, diagnosis)
        if output.verbose:
            _show_all(output, diagnosis)
    if errors:
        raise errors[0]


def _show(output: Output, diagnosis: Diagnosis) -> None:
    """Print what there is to know on one screen."""
    from imprompt.core.settings import config_path

    machine, index = diagnosis.machine, diagnosis.index
    memory = "memory unknown"
    if machine.memory_bytes is not None:
        memory = f"{size_text(machine.memory_bytes)} memory"
    if diagnosis.problems:
        output.text(f"Not ready: {diagnosis.problems[0]}")
    elif index.problem:
        output.text(f"Ready, but without an index. {index.problem}")
    else:
        output.text("Ready: the default blend config can run.")
    network = "off (--offline)" if machine.offline else "used to fetch models that are not here"
    rows = [
        ("imprompt", f"{machine.imprompt}, Python {machine.python}, {machine.system}"),
        ("machine", f"{machine.cores} cores, {memory}"),
        ("device", machine.device),
        ("network", network),
        ("index", index.folder if index.problem else _index(index)),
        ("defaults", diagnosis.config or f"none; they would be in {config_path()}"),
    ]
    output.table(grid("", ["", ""], rows))
    sets = [each for each in diagnosis.model_sets if each.kind != "member"]
    states = [(each.name, each.kind, "ready" if each.ready else _remedy(each)) for each in sets]
    output.table(grid("Models for", ["name", "kind", ""], states))
    if not output.verbose:
        output.text("`imprompt doctor --verbose` lists packages, members, files and folders.")


def _show_all(output: Output, diagnosis: Diagnosis) -> None:
    machine = diagnosis.machine
    rows = [
        ("ONNX Runtime", machine.onnxruntime),
        ("torch", machine.torch or "not installed"),
        ("FAISS", machine.faiss),
        ("signatures", machine.ssh_keygen or "ssh-keygen not found: packs cannot be signed"),
    ]
    rows += [
        (folder.name, f"{folder.path} ({size_text(folder.free_bytes)} free)")
        for folder in diagnosis.folders
    ]
    output.table(grid("", ["", ""], rows))
    packages = _packages(diagnosis.packages)
    output.table(grid("Packages", ["extra", "installed", "missing"], packages))
    model_sets = map(_model_set, diagnosis.model_sets)
    columns = ["name", "kind", "can run", "weights in memory"]
    output.table(grid("Models for", columns, model_sets))
    output.text("Models that run on torch take twice that while they load.")
    output.table(grid("Files", ["file", "where", "size", "licence"], _files(diagnosis)))
    for model_set in diagnosis.model_sets:
        for line in _remedies(model_set):
            output.text(f"{model_set.name}: {line}")


def _index(index: IndexState) -> str:
    sizes = f"{size_text(index.bytes)} on disk, {size_text(index.memory_bytes)} in memory in use"
    return f"{index.rows:,} prompts of {index.corpus} by {index.encoder}; {sizes}; {index.version}"


def _packages(states: list[PackageState]) -> Iterator[tuple[str, str, str]]:
    from imprompt.core.pip_lines import install_extra
    from imprompt.environment.packages import lacking

    for extra in dict.fromkeys(state.extra for state in states):
        required = [state for state in states if state.extra == extra]
        missing = ", ".join(_missing_package(state) for state in required if not state.fits)
        if missing and lacking(states, extra):
            missing += f": {install_extra(extra)}"
        elif missing:
            missing += " (not needed: the other FAISS is installed)"
        installed = sum(state.fits for state in required)
        yield extra or "always", f"{installed} of {len(required)}", missing


def _missing_package(state: PackageState) -> str:
    return f"{state.requirement} (is {state.version})" if state.version else state.requirement


def _model_set(state: ModelSetState) -> tuple[str, str, str, str]:
    if state.weights_bytes:
        at_least = "" if state.sizes_known else "more than "
        weights = f"{at_least}{size_text(state.weights_bytes)}"
    else:
        weights = "none" if state.sizes_known else "unknown until asked"
    return state.name, state.kind, "yes" if state.ready else "no", weights


def _files(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str, str]]:
    files = {
        (file.origin, file.file): file
        for model_set in diagnosis.model_sets
        for part in model_set.parts
        for file in part.files
    }
    for file in files.values():
        size = "unknown until asked" if file.bytes is None else size_text(file.bytes)
        if file.bytes is not None and not file.here:
            size = f"about {size}"
        path = file.here or f"not here; from {file.origin}"
        yield file.file, path, size, file.licence or "not known here"


def _remedy(model_set: ModelSetState) -> str:
    """Return what is missing in a few words, and the command for it."""
    for part in model_set.parts:
        if part.problems:
            return part.problems[0]
    n_missing = len(_missing_files(model_set))
    files = f"{n_missing} files are" if n_missing > 1 else "a file is"
    return f"{files} not here: imprompt prefetch {model_set.name}"


def _remedies(model_set: ModelSetState) -> Iterator[str]:
    """Yield a line for everything that a model set lacks, with the command for it."""
    yield from dict.fromkeys(problem for part in model_set.parts for problem in part.problems)
    if missing := _missing_files(model_set):
        yield f"{', '.join(missing)} not here: imprompt prefetch {model_set.name}"


def _missing_files(model_set: ModelSetState) -> list[str]:
    """Return the names of the files that `prefetch` would fetch."""
    return sorted(
        {
            file.file
            for part in model_set.parts
            for file in part.files
            if not file.here and file.origin != "pip"
        }
    )
