"""The package faiss-gpu on a machine without a GPU.

`make test-faiss-gpu` makes its environment and runs this, among others.

What is called on a GPU is held by name and by signature; only the clone itself is left to a machine
that has one.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import faiss
import pytest

from imprompt.core.errors import ConfigError
from imprompt.store.faiss_import import import_faiss
from imprompt.store.gpu import opened_gpu

ROOT = Path(__file__).resolve().parents[2]


def test_this_is_the_wheel() -> None:
    """Built for GPUs, found before faiss-cpu, of the version that was tested."""
    assert Path(faiss.__file__).is_relative_to(ROOT / ".venv-faiss-gpu")
    assert "GPU" in faiss.get_compile_options()
    assert import_faiss() is faiss
    assert importlib.metadata.version("faiss-gpu") == faiss.__version__


def test_what_is_called_on_a_gpu_is_there() -> None:
    """The resources, the options that are set, and the clone function with its arguments."""
    faiss.StandardGpuResources()
    options = faiss.GpuClonerOptions()
    assert options.useFloat16 is False
    options.useFloat16 = True
    assert options.useFloat16 is True
    # Everything up to the device is taken: a wrong type or number of arguments would be a
    # TypeError.
    with pytest.raises(RuntimeError, match="Invalid GPU device 0"):
        faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(8), options)
    for name in ("add", "search", "ntotal", "reset"):
        assert hasattr(faiss.GpuIndexFlat, name)
    assert issubclass(
        faiss.GpuIndexFlat, faiss.Index
    )  # so it may cluster in the place of an index on the processor


def test_without_a_gpu_the_processor_searches() -> None:
    """`auto` says nothing, because nothing is wrong; `cuda` is refused with the reason.

    Neither ends the process.
    """
    assert faiss.get_num_gpus() == 0
    said: list[str] = []
    with opened_gpu("auto", announce=said.append) as gpu:
        assert gpu is None
    assert said == []
    with (
        pytest.raises(ConfigError, match="FAISS cannot use a GPU: there is no NVIDIA driver here"),
        opened_gpu("cuda"),
    ):
        pass


def test_the_commands_work_with_it(tmp_path: Path) -> None:
    """An index is built and searched with this wheel, and `--device cuda` ends in one line."""
    (tmp_path / "prompts.txt").write_text(
        "a red fox in the snow\na bowl of ramen\na lighthouse at dusk\n", "utf-8"
    )

    def imprompt(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "cli.py", *words, "--index", str(tmp_path / "index")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    built = imprompt("build-index", "--corpus", str(tmp_path / "prompts.txt"))
    assert built.returncode == 0, built.stderr
    assert "a bowl of ramen" in imprompt("query", "--text", "noodle soup", "-k", "1").stdout
    refused = imprompt("query", "--text", "noodle soup", "--device", "cuda")
    assert refused.returncode == ConfigError.exit_code
    assert refused.stderr.count("\n") == 1
    assert "no NVIDIA driver" in refused.stderr
