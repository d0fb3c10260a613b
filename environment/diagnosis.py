"""What `doctor` reports: installation, machine, index, and the models that commands need.

Nothing heavy is imported.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from imprompt.core.errors import ConfigError, ImpromptError, NoIndex, WeightsMissing
from imprompt.core.hub.download import free_bytes
from imprompt.core.hub.hub_files import Wanted, cached_choice, hub_folder
from imprompt.core.hub.repositories import licence_of, size_of
from imprompt.core.pip_lines import install_extra
from imprompt.core.settings import IndexPlace, Settings, config_path
from imprompt.core.signatures import find_program
from imprompt.environment.model_files import Need, blend_needs, encoder_need, needs_of
from imprompt.environment.packages import (
    PackageState,
    both_faiss,
    lacking,
    loading_problems,
    package_states,
)
from imprompt.environment.presets import PRESETS, Preset

if TYPE_CHECKING:
    from imprompt.store.manifest import Manifest

PROJECT_LICENCE = "Apache-2.0"
"""The licence of the project, and of the weights in the pinned packages (docs/weights.md)."""


class FileState(msgspec.Struct, frozen=True):
    """A file that a part needs.

    `here` is its path ("" if missing), `origin` where it comes from, `bytes` its length or, for a
    missing file, the published approximation. `licence` is "" where unknown.
    """

    file: str
    here: str
    origin: str
    bytes: int | None
    licence: str


class PartState(msgspec.Struct, frozen=True):
    """A part of a model set (an encoder, a corpus, a member), its files, and its other problems."""

    part: str
    files: list[FileState]
    problems: list[str]


class ModelSetState(msgspec.Struct, frozen=True):
    """The models that a preset, a blend config, a member or the index needs.

    `kind` is one of these four. `weights_bytes` is the size of the weights in memory, as far as
    known; CLIP models take half of it on CUDA.
    """

    name: str
    kind: str
    ready: bool
    weights_bytes: int
    sizes_known: bool
    parts: list[PartState]


class IndexState(msgspec.Struct, frozen=True):
    """The index in service: its size on disk, and the part that is mapped while it answers.

    `problem` is "" if it can be asked.
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
    """A folder that commands write to, and the free space of its disk."""

    name: str
    path: str
    exists: bool
    free_bytes: int


class Machine(msgspec.Struct, frozen=True):
    """Python, system, cores, memory, and what `--device auto` uses to encode and to search.

    `memory_bytes` is None where the system does not say. `ssh_keygen` is the path of the program
    that signs and checks packs, "" where there is none.
    """

    imprompt: str
    python: str
    system: str
    cores: int
    memory_bytes: int | None
    onnxruntime: str
    torch: str
    device: str
    offline: bool
    faiss: str
    ssh_keygen: str


class Diagnosis(msgspec.Struct, frozen=True):
    """All that `doctor` reports; `problems` keep the default blend config from running.

    `config` is the path of the user's defaults for options, if there are any.
    """

    machine: Machine
    packages: list[PackageState]
    model_sets: list[ModelSetState]
    index: IndexState
    folders: list[FolderState]
    problems: list[str]
    config: str = ""


def diagnose(
    settings: Settings, *, known: Sequence[ImpromptError] = ()
) -> tuple[Diagnosis, list[ImpromptError]]:
    """Return the diagnosis, and the errors that keep the default blend config from running.

    Args:
        known: errors that the caller has met.
    """
    packages = package_states()
    errors: list[ImpromptError] = [*known, *_package_errors(packages)]
    model_sets = [
        _model_set("lite", "preset", needs_of("lite"), packages, errors=errors),
        *(_model_set(name, "preset", needs_of(name), packages) for name in ("clip-small", "clip")),
        *(_model_set(name, "blend", needs_of(name), packages) for name in ("default", "notebook")),
        *_member_sets(packages),
    ]
    index, damage, manifest = _index_state(settings.place)
    errors += damage
    if manifest is not None:
        encoder = manifest.encoders[0].name
        if encoder != PRESETS[Preset.LITE].encoder:  # which is above
            state = _model_set(encoder, "index", [_quick_need(encoder)], packages, errors=errors)
            if encoder not in {preset.encoder for preset in PRESETS.values()}:
                model_sets.append(state)
    diagnosis = Diagnosis(
        _machine(settings, packages),
        packages,
        model_sets,
        index,
        _folders(settings),
        [str(error) for error in errors],
        str(config_path()) if config_path().exists() else "",
    )
    return diagnosis, errors


def _package_errors(states: list[PackageState]) -> list[ConfigError]:
    """Return what is wrong with the packages: missing, in conflict, or not loadable."""
    from imprompt.encoders.onnx_runtime import stop_telemetry

    errors = []
    missing = [state.requirement for state in lacking(states, "")]
    if missing:
        names = ", ".join(missing)
        errors.append(
            ConfigError(f"Packages are missing or too old: {names}.", hint=install_extra("cpu"))
        )
    if both_faiss(states):
        errors.append(
            ConfigError(
                "faiss-cpu and faiss-gpu are both installed and overwrite each other's files.",
                hint="Uninstall both with pip, then install one.",
            )
        )
    stop_telemetry()  # modules are imported to see whether they can be
    installed = [
        module for module in ("duckdb", "faiss", "onnxruntime", "torch") if find_spec(module)
    ]
    hint = "Install it again for this system, with the versions of constraints.txt."
    errors += [
        ConfigError(f"{module} is installed and cannot be loaded: {problem}.", hint=hint)
        for module, problem in loading_problems(installed).items()
        if problem
    ]
    return errors


def _quick_need(encoder: str) -> Need:
    """Return what an encoder needs, without files that only open_clip's table names.

    Importing open_clip takes seconds.
    """
    from imprompt.core.weight_names import HUB_PREFIX, TRANSFORMERS_PREFIX
    from imprompt.encoders.openclip_source import PUBLISHED

    need = encoder_need(encoder)
    prefixes = ("lite:", HUB_PREFIX, TRANSFORMERS_PREFIX)
    if encoder in PUBLISHED or encoder.startswith(prefixes) or Path(encoder).is_dir():
        return need
    name = f"{need.name} (`prefetch --list` shows its files)"
    return Need(name, extra=need.extra, local=need.local)


def _member_sets(packages: list[PackageState]) -> list[ModelSetState]:
    from imprompt.ensemble.blend_config import BlendConfig
    from imprompt.ensemble.members import LOADERS

    sets = []
    for name in LOADERS:
        alone = BlendConfig(name=name, weights={name: 1.0})
        sets.append(_model_set(name, "member", blend_needs(alone)[1:], packages))
    return sets


def _model_set(
    name: str,
    kind: str,
    needs: list[Need],
    packages: list[PackageState],
    *,
    errors: list[ImpromptError] | None = None,
) -> ModelSetState:
    """Return the state of a model set; `errors` collects its problems."""
    parts = [_part_state(need, packages, [] if errors is None else errors) for need in needs]
    weights = {
        file.file: file
        for part in parts
        if not part.part.startswith("corpus ")
        for file in part.files
    }.values()
    return ModelSetState(
        name=name,
        kind=kind,
        ready=not any(part.problems for part in parts)
        and all(file.here for part in parts for file in part.files),
        weights_bytes=sum(file.bytes or 0 for file in weights),
        sizes_known=all(file.bytes is not None for file in weights),
        parts=parts,
    )


def _part_state(need: Need, packages: list[PackageState], errors: list[ImpromptError]) -> PartState:
    files: list[FileState] = []
    problems: list[str] = []
    if need.extra and (absent := lacking(packages, need.extra)):
        names = ", ".join(state.requirement for state in absent)
        problems.append(f"packages are missing ({names}): {install_extra(need.extra)}")
    for state, error in (*map(_pinned_state, need.pinned), *map(_local_state, need.local)):
        files.append(state)
        if error is not None:
            problems.append(str(error))
            errors.append(error)
    try:
        wants = need.settled()
    except ImpromptError as error:
        problems.append(str(error))
        wants = ()
    for want in wants:
        state = _hub_state(want)
        if state.here or not want.optional:
            files.append(state)
    return PartState(need.name, files, problems)


def _local_state(path: Path) -> tuple[FileState, ImpromptError | None]:
    from imprompt.encoders.lite import HEAD_PATH

    ours = path == HEAD_PATH
    origin, licence = ("this project", PROJECT_LICENCE) if ours else ("yours", "")
    if path.exists():
        return FileState(path.name, str(path), origin, _length(path), licence), None
    hint = "Install imprompt again." if ours else "Name another file."
    error = WeightsMissing(f"{path} does not exist.", path=path, hint=hint)
    return FileState(path.name, "", origin, None, licence), error


def _pinned_state(role: str) -> tuple[FileState, ImpromptError | None]:
    from imprompt.encoders.weights import pinned_weights

    try:
        path = pinned_weights(role).path
    except ImpromptError as error:
        return FileState(role, "", "pip", None, PROJECT_LICENCE), error
    return FileState(role, str(path), "pip", _length(path), PROJECT_LICENCE), None


def _hub_state(want: Wanted) -> FileState:
    """Return the choice that is here, else the last one whose size is known.

    The last choices are the older file names, which all repositories have.
    """
    here = cached_choice(want.choices)
    sized = (choice for choice in reversed(want.choices) if size_of(choice) is not None)
    file = next(sized, want.choices[-1])
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
        problem = f"{root} is on Milvus; ask it with `imprompt info`"
        return IndexState(str(root), problem=problem), [], None
    try:
        with pin_manifest(root) as pinned:
            manifest = decode_manifest(pinned.content, path=pinned.folder / MANIFEST)
            check_lengths(pinned.folder, manifest)
    except NoIndex as error:
        return IndexState(str(root), problem=str(error)), [], None
    except ImpromptError as error:
        return IndexState(str(root), problem=str(error)), [error], None
    indexed = [file for info in manifest.indexes.values() for file in info.files]
    state = IndexState(
        folder=str(root),
        version=manifest.version,
        rows=manifest.rows,
        encoder=manifest.encoders[0].name,
        corpus=", ".join(part.name for part in manifest.corpus),
        bytes=manifest.n_bytes,
        memory_bytes=sum(manifest.files[name].bytes for name in indexed if name in manifest.files),
    )
    return state, [], manifest


def _folders(settings: Settings) -> list[FolderState]:
    folders = {
        "cache": settings.cache,
        "files put by hand": settings.cache / "by-hand",
        "hub's cache": hub_folder(),
    }
    if isinstance(settings.place, Path):
        folders = {"index": settings.place, **folders}
    return [
        FolderState(name, str(path), path.exists(), free_bytes(path))
        for name, path in folders.items()
    ]


def _machine(settings: Settings, states: list[PackageState]) -> Machine:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    from imprompt.encoders.torch_devices import auto_device, torch_build
    from imprompt.indexer.provenance import imprompt_version

    torch, cuda = torch_build()
    return Machine(
        imprompt=imprompt_version(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        onnxruntime=_onnxruntime(),
        torch=torch,
        device=auto_device(cuda) if torch else "cpu",
        offline=settings.offline or bool(HF_HUB_OFFLINE),
        faiss=_faiss(states),
        ssh_keygen=find_program() or "",
    )


def _memory_bytes() -> int | None:
    """Return the machine's memory; None on Windows, where the standard library cannot tell."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _onnxruntime() -> str:
    """Return which package of ONNX Runtime is installed: the one for GPUs is not required."""
    for name in ("onnxruntime-gpu", "onnxruntime"):
        with suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return "not installed"


def _faiss(states: list[PackageState]) -> str:
    """Return which FAISS is installed and where it searches, from packages and driver alone."""
    from imprompt.core.device_names import nvidia_driver

    installed = {
        state.extra: state.version
        for state in states
        if state.extra in ("cpu", "gpu") and state.version
    }
    if "gpu" in installed:
        driver = nvidia_driver()
        limit = f"{driver.gpu}; the driver runs CUDA {driver.cuda[0]}.{driver.cuda[1]} at most"
        return f"faiss-gpu {installed['gpu']} ({driver.problem or limit})"
    return f"faiss-cpu {installed['cpu']} (searches on the CPU)" if installed else "not installed"
