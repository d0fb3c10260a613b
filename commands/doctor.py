"""`doctor`: what is installed, what each blend config needs, what is missing, and the command for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from imprompt.commands.options import IndexFolder, Json, Offline, Quiet, Verbose
from imprompt.commands.output import Output, grid, size_text

if TYPE_CHECKING:
    from imprompt.environment.diagnosis import ConfigState, Diagnosis, IndexState
    from imprompt.environment.packages import PackageState


def doctor(
    index: IndexFolder = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Say what is installed, which models each blend config needs and where they are, what they take, and what is missing.

    Never touches the network. Ends with 0 where the default blend config can run, else with the code of
    the first problem.
    """
    from imprompt.core.settings import settings
    from imprompt.environment.diagnosis import diagnose

    output = Output(json=json, quiet=quiet, verbose=verbose)
    found, errors = diagnose(settings(index=index, offline=offline))
    if json:
        output.line(found)
    else:
        _show(output, found)
    if errors:
        raise errors[0]


def _show(output: Output, found: Diagnosis) -> None:
    machine, index = found.machine, found.index
    rows = [
        ("imprompt", f"{machine.imprompt}, Python {machine.python}, {machine.system}"),
        ("torch", machine.torch or "not installed"),
        ("device", machine.device),
        ("FAISS", machine.faiss),
        ("machine", f"{machine.cores} cores, {size_text(machine.memory_bytes)} memory"),
        (
            "network",
            "shut (--offline)"
            if machine.offline
            else "used when a command names a model that is not here",
        ),
        ("index", index.problem or _index(index)),
    ]
    rows += [
        (folder.what, f"{folder.path} ({size_text(folder.free_bytes)} free)")
        for folder in found.folders
    ]
    output.table(grid("", ["", ""], rows))
    output.table(grid("Packages", ["extra", "installed", "missing"], _packages(found.packages)))
    output.table(
        grid(
            "Recipes",
            ["blend", "", "can run", "weights in memory"],
            [_config_row(config) for config in found.configs],
        )
    )
    output.table(grid("Files", ["file", "where", "size", "licence"], _files(found)))
    for line in _remedies(found):
        output.text(line)


def _index(index: IndexState) -> str:
    sizes = f"{size_text(index.bytes)} on disk, {size_text(index.memory_bytes)} of them in memory while it answers"
    return f"{index.rows:,} prompts of {index.corpus} by {index.encoder}; {sizes}; {index.version}"


def _packages(states: list[PackageState]) -> Iterator[tuple[str, str, str]]:
    from imprompt.environment.packages import lacking, pip_line

    for extra in dict.fromkeys(state.extra for state in states):
        own = [state for state in states if state.extra == extra]
        missing = ", ".join(
            f"{state.requirement}{f' (is {state.version})' if state.version else ''}"
            for state in own
            if not state.fits
        )
        installed = sum(state.fits for state in own)
        if missing and not lacking(states, extra):
            missing = f"{missing}, for which the other FAISS stands"
        elif missing:
            missing = f"{missing}: {pip_line(extra)}"
        yield extra or "always", f"{installed} of {len(own)}", missing


def _config_row(config: ConfigState) -> tuple[str, str, str, str]:
    if not config.weights_bytes:
        weights = "none of its own" if config.sizes_known else "unknown until asked"
    else:
        weights = f"{'' if config.sizes_known else 'more than '}{size_text(config.weights_bytes)}"
    return (config.name, config.kind, "yes" if config.ready else "no", weights)


def _files(found: Diagnosis) -> Iterator[tuple[str, str, str, str]]:
    files = {
        (file.origin, file.file): file
        for config in found.configs
        for part in config.parts
        for file in part.files
    }
    for file in files.values():
        about = "" if file.here else "about "
        size = "unknown until asked" if file.bytes is None else f"{about}{size_text(file.bytes)}"
        yield (
            file.file,
            file.here or f"not here; from {file.origin}",
            size,
            file.licence or "not known here",
        )


def _remedies(found: Diagnosis) -> Iterator[str]:
    """A line for everything that is missing, with the command for it."""
    for config in found.configs:
        missing = sorted(
            {
                file.file
                for part in config.parts
                for file in part.files
                if not file.here and file.origin != "pip"
            }
        )
        problems = dict.fromkeys(problem for part in config.parts for problem in part.problems)
        yield from (f"{config.name}: {problem}" for problem in problems)
        if missing:
            yield f"{config.name}: {', '.join(missing)} not here: python cli.py prefetch {config.name}"
    yield (
        "The default blend config can run."
        if not found.problems
        else "The default blend config cannot run."
    )
