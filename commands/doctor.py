"""`doctor`: show what is installed, what is missing, and the command that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from imprompt.commands.options import IndexFolder, Offline
from imprompt.commands.output import Output, grid
from imprompt.core.text import size_text

if TYPE_CHECKING:
    from imprompt.environment.diagnosis import Diagnosis, IndexState, ModelSetState
    from imprompt.environment.packages import PackageState


def doctor(*, index: IndexFolder = None, offline: Offline = False, output: Output) -> None:
    """Check the installation: packages, models, memory, the index, and what is missing.

    Never uses the network. Exits with 0 if the default blend config can run, otherwise with the
    code of the first problem.
    """
    from imprompt.core.settings import settings
    from imprompt.environment.diagnosis import diagnose

    diagnosis, errors = diagnose(settings(index=index, offline=offline))
    if output.json:
        output.line(diagnosis)
    else:
        _show(output, diagnosis)
    if errors:
        raise errors[0]


def _show(output: Output, diagnosis: Diagnosis) -> None:
    machine, index = diagnosis.machine, diagnosis.index
    network = "off (--offline)" if machine.offline else "used to fetch models that are not here"
    memory = "memory unknown"
    if machine.memory_bytes is not None:
        memory = f"{size_text(machine.memory_bytes)} memory"
    rows = [
        ("imprompt", f"{machine.imprompt}, Python {machine.python}, {machine.system}"),
        ("ONNX Runtime", machine.onnxruntime),
        ("torch", machine.torch or "not installed"),
        ("device", machine.device),
        ("FAISS", machine.faiss),
        ("machine", f"{machine.cores} cores, {memory}"),
        ("network", network),
        ("signatures", machine.ssh_keygen or "ssh-keygen not found: packs cannot be signed"),
        ("index", index.problem or _index(index)),
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
    output.table(grid("Files", ["file", "where", "size", "licence"], _files(diagnosis)))
    for line in _remedies(diagnosis):
        output.text(line)


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


def _remedies(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield a line for everything that is missing, with the command for it."""
    for model_set in diagnosis.model_sets:
        name = model_set.name
        problems = dict.fromkeys(problem for part in model_set.parts for problem in part.problems)
        yield from (f"{name}: {problem}" for problem in problems)
        missing = {
            file.file
            for part in model_set.parts
            for file in part.files
            if not file.here and file.origin != "pip"
        }
        if missing:
            files = ", ".join(sorted(missing))
            yield f"{name}: {files} not here: imprompt prefetch {name}"
    can = "cannot" if diagnosis.problems else "can"
    yield f"The default blend config {can} run."
