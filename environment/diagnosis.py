"""What `doctor` finds: the installation, the machine, the models that each blend config needs, the index.

Nothing heavy is imported.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from imprompt.core.errors import ConfigError, ImpromptError, NoIndex, WeightsMissing
from imprompt.core.hub.download import free_bytes
from imprompt.core.hub.fetch import Wanted, cached_choice, hub_folder
from imprompt.core.hub.repositories import licence_of, size_of
from imprompt.core.settings import IndexPlace, Settings
from imprompt.environment.model_files import Need, blend_needs, encoder_need, needs_of
from imprompt.environment.packages import (
    PackageState,
    both_faiss,
    lacking,
    loading_problems,
    package_states,
    pip_line,
)
from imprompt.environment.presets import PRESETS

if TYPE_CHECKING:
    from imprompt.store.manifest import Manifest

PROJECT_LICENCE = "Apache-2.0"
"""Of the project's own files, and of the weights that the pinned packages carry: docs/weights.md."""


class FileState(msgspec.Struct, frozen=True):
    """One file that a part needs. `here` is where it lies ("" where it does not), `origin` where it comes from.

    `bytes` is its length, or about that where it is not here and a page tells it; `licence` is ""
    where it is not known here.
    """

    file: str
    here: str
    origin: str
    bytes: int | None
    licence: str


class PartState(msgspec.Struct, frozen=True):
    """A part of a blend config (an encoder, a corpus, a member), its files, and what else is wrong with it, a line each."""

    part: str
    files: list[FileState]
    problems: list[str]


class ConfigState(msgspec.Struct, frozen=True):
    """A blend config and its parts.

    `weights_bytes` is what its weights take in memory, as far as their sizes are known; CLIP models
    take half of it on CUDA.
    """

    name: str
    kind: str
    ready: bool
    weights_bytes: int
    sizes_known: bool
    parts: list[PartState]


class IndexState(msgspec.Struct, frozen=True):
    """The index in service, on disk and as much of it as is mapped while it answers;

    `problem` is "" where it can be asked.
    """

    folder: str
    version: str = ""
    rows: int = 0
    encoder: str = ""
    corpus: str = ""
    bytes: int = 0
    memory_bytes: int = 0
    problem: str = ""


class FolderState(msgspec.Struct, frozen=True):
    """A folder that is written to, and the free space of its disk."""

    what: str
    path: str
    exists: bool
    free_bytes: int


class Machine(msgspec.Struct, frozen=True):
    """Python, system, processor cores, memory, and what `--device auto` takes, to encode and to search (`faiss`)."""

    imprompt: str
    python: str
    system: str
    cores: int
    memory_bytes: int
    torch: str
    device: str
    offline: bool
    faiss: str


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything that `doctor` says.

    `problems` are what keeps the default blend config from running, the first is the exit code's.
    """

    machine: Machine
    packages: list[PackageState]
    configs: list[ConfigState]
    index: IndexState
    folders: list[FolderState]
    problems: list[str]


def diagnose(chosen: Settings) -> tuple[Diagnosis, list[ImpromptError]]:
    """What is there, and the errors that keep the default blend config from running."""
    states = package_states()
    errors: list[ImpromptError] = []
    if absent := lacking(states, ""):
        names = ", ".join(state.requirement for state in absent)
        errors.append(
            ConfigError(f"Packages are missing or too old: {names}.", hint=pip_line("cpu"))
        )
    if both_faiss(states):
        errors.append(
            ConfigError(
                "faiss-cpu and faiss-gpu are both installed and share one folder.",
                hint="pip uninstall both, install one.",
            )
        )
    errors += _loading_errors(absent)
    configs = [
        _config_state("lite", "build", needs_of("lite"), states, errors=errors),
        _config_state("clip", "build", needs_of("clip"), states),
        *(_config_state(name, "blend", needs_of(name), states) for name in ("default", "notebook")),
        *_member_states(states),
    ]
    index, damage, manifest = _index_state(chosen.place)
    errors += damage
    if manifest is not None and (name := manifest.encoders[0].name) not in {
        parts.encoder for parts in PRESETS.values()
    }:
        configs.append(_config_state(name, "the index", [_quick_encoder_need(name)], states))
    found = Diagnosis(
        _machine(chosen, states),
        states,
        configs,
        index,
        _folders(chosen),
        [str(error) for error in errors],
    )
    return found, errors


def _loading_errors(absent: list[PackageState]) -> list[ConfigError]:
    """The compiled libraries that are installed and do not load here: an instruction set or another library is missing."""
    missing = [state.requirement for state in absent]
    installed = [
        module
        for module in ("faiss", "torch")
        if not any(name.startswith(module) for name in missing)
    ]
    hint = "Install it again for this system, with the versions of constraints.txt."
    problems = loading_problems(installed)
    return [
        ConfigError(f"{name} is installed and cannot be loaded: {why}.", hint=hint)
        for name, why in problems.items()
        if why
    ]


def _quick_encoder_need(name: str) -> Need:
    """What an encoder needs, but for names whose files only open_clip's own table tells: importing that takes seconds."""
    from imprompt.encoders.openclip_source import HUB_PREFIX, PUBLISHED

    need = encoder_need(name)
    quick = name in PUBLISHED or name.startswith(("lite:", HUB_PREFIX)) or Path(name).is_dir()
    return (
        need
        if quick
        else Need(
            f"{need.what} (prefetch --list tells its files)", extra=need.extra, local=need.local
        )
    )


def _member_states(states: list[PackageState]) -> list[ConfigState]:
    from imprompt.ensemble.blend_config import BlendConfig
    from imprompt.ensemble.members import LOADERS

    return [
        _config_state(
            name, "member", blend_needs(BlendConfig(name=name, weights={name: 1.0}))[1:], states
        )
        for name in LOADERS
    ]


def _config_state(
    name: str,
    kind: str,
    needs: list[Need],
    states: list[PackageState],
    *,
    errors: list[ImpromptError] | None = None,
) -> ConfigState:
    parts = [_part_state(need, states, [] if errors is None else errors) for need in needs]
    files = {
        file.file: file for part in parts for file in part.files if "corpus " not in part.part
    }.values()
    return ConfigState(
        name=name,
        kind=kind,
        ready=not any(part.problems for part in parts)
        and all(file.here for part in parts for file in part.files),
        weights_bytes=sum(file.bytes or 0 for file in files),
        sizes_known=all(file.bytes is not None for file in files),
        parts=parts,
    )


def _part_state(need: Need, states: list[PackageState], errors: list[ImpromptError]) -> PartState:
    files: list[FileState] = []
    absent = [state.requirement for state in lacking(states, need.extra)] if need.extra else []
    problems = (
        [f"packages are missing ({', '.join(absent)}): {pip_line(need.extra)}"] if absent else []
    )
    for role in need.packaged:
        _packaged_state(role, files, problems, errors)
    for path in need.local:
        _local_state(path, files, problems, errors)
    try:
        wants = need.wanted()
    except ImpromptError as error:
        problems.append(str(error))
        wants = ()
    for want in wants:
        state = _hub_state(want)
        if state.here or not want.optional:
            files.append(state)
    return PartState(need.what, files, problems)


def _local_state(
    path: Path, files: list[FileState], problems: list[str], errors: list[ImpromptError]
) -> None:
    from imprompt.encoders.lite import HEAD_PATH

    ours = path == HEAD_PATH
    here = str(path) if path.exists() else ""
    files.append(
        FileState(
            path.name,
            here,
            "this project" if ours else "yours",
            _length(path),
            PROJECT_LICENCE if ours else "",
        )
    )
    if not here:
        error = WeightsMissing(
            f"{path} is not there.",
            path=path,
            hint="Install imprompt again." if ours else "Name another file.",
        )
        problems.append(str(error))
        errors.append(error)


def _packaged_state(
    role: str, files: list[FileState], problems: list[str], errors: list[ImpromptError]
) -> None:
    from imprompt.encoders.weights import packaged_weights

    try:
        path = packaged_weights(role).path
    except ImpromptError as error:
        files.append(FileState(role, "", "pip", None, PROJECT_LICENCE))
        problems.append(str(error))
        errors.append(error)
    else:
        files.append(FileState(role, str(path), "pip", _length(path), PROJECT_LICENCE))


def _hub_state(want: Wanted) -> FileState:
    """The choice that lies here, else the last one whose size is known: the older names are those that all repositories have."""
    here = cached_choice(want.choices)
    file = next(
        (choice for choice in reversed(want.choices) if size_of(choice) is not None),
        want.choices[-1],
    )
    if here:
        return FileState(here.name, str(here), file.repo, _length(here), licence_of(file))
    return FileState(file.filename, "", file.repo, size_of(file), licence_of(file))


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _index_state(root: IndexPlace) -> tuple[IndexState, list[ImpromptError], Manifest | None]:
    from imprompt.store.index_version import check_lengths, pin_manifest
    from imprompt.store.layout import MANIFEST
    from imprompt.store.manifest import decode_manifest

    if not isinstance(root, Path):
        return (
            IndexState(
                str(root), problem=f"{root} is on Milvus, which is not asked here; `info` asks it"
            ),
            [],
            None,
        )
    try:
        with pin_manifest(root) as pinned:
            manifest = decode_manifest(pinned.content, path=pinned.folder / MANIFEST)
            check_lengths(pinned.folder, manifest)
    except NoIndex as error:
        return IndexState(str(root), problem=str(error)), [], None
    except ImpromptError as error:
        return IndexState(str(root), problem=str(error)), [error], None
    corpus = ", ".join(part.name for part in manifest.corpus)
    size = sum(file.bytes for file in manifest.files.values())
    indexed = [file for info in manifest.indexes.values() for file in info.files]
    mapped = sum(manifest.files[file].bytes for file in indexed if file in manifest.files)
    encoder = manifest.encoders[0].name
    return (
        IndexState(str(root), manifest.version, manifest.rows, encoder, corpus, size, mapped),
        [],
        manifest,
    )


def _folders(chosen: Settings) -> list[FolderState]:
    folders = {
        **({"index": chosen.place} if isinstance(chosen.place, Path) else {}),
        "cache": chosen.cache,
        "files put by hand": chosen.cache / "by-hand",
        "hub's cache": hub_folder(),
    }
    return [
        FolderState(what, str(path), path.exists(), free_bytes(path))
        for what, path in folders.items()
    ]


def _machine(chosen: Settings, states: list[PackageState]) -> Machine:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    from imprompt.encoders.torch_devices import auto_device, torch_build
    from imprompt.indexer.provenance import imprompt_version

    version, cuda = torch_build()
    return Machine(
        imprompt=imprompt_version(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        torch=version,
        device=auto_device(cuda),
        offline=chosen.offline or bool(HF_HUB_OFFLINE),
        faiss=_faiss(states),
    )


def _faiss(states: list[PackageState]) -> str:
    """Which FAISS is installed, and where it searches; told by the packages and the driver."""
    from imprompt.core.device_names import nvidia_driver

    installed = {
        state.extra: state.version
        for state in states
        if state.extra in ("cpu", "gpu") and state.version
    }
    if "gpu" not in installed:
        return (
            f"faiss-cpu {installed['cpu']}, which searches on the processor"
            if installed
            else "not installed"
        )
    driver = nvidia_driver()
    where = (
        driver.problem
        or f"{driver.gpu}; the driver runs CUDA {driver.cuda[0]}.{driver.cuda[1]} at most"
    )
    return f"faiss-gpu {installed['gpu']} ({where})"
