"""Devices of torch: choosing one, and the precision that towers compute in on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import runpy
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.device_names import (
    PROCESSOR,
    NvidiaDriver,
    check_device,
    check_dtype,
    nvidia_driver,
)
from imprompt.core.errors import ConfigError, EncoderError, first_line
from imprompt.core.hub.fetch import Announce
from imprompt.core.pip_lines import install_extra, pip_install
from imprompt.core.values import Vectors

if TYPE_CHECKING:
    from torch import Tensor


_BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Linux's names for the instructions, the last one on Arm."""


def import_torch() -> Any:
    """Return the module `torch`.

    Raises:
        EncoderError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise EncoderError(
                "this model needs torch, which is not installed.",
                hint="Install the extra of the model, such as clip, ofa or vit: "
                f"{install_extra('clip')}",
            ) from error
        raise EncoderError(
            f"torch cannot be loaded: {first_line(error)}.",
            hint=f"Install it again: {pip_install('--force-reinstall torch')}; "
            "pytorch.org lists the builds for each system.",
        ) from error
    return torch


def choose_device(device: str) -> str:
    """Return torch's "cpu", "cuda" or "mps"; "auto" takes CUDA, then MPS, where it is available.

    Raises:
        ConfigError: unknown name, or "cuda" or "mps" on a machine without it.
        EncoderError: torch cannot be loaded.
    """
    check_device(device)
    torch = import_torch()
    if device in PROCESSOR:
        return "cpu"
    if device == "mps":
        return _mps(torch)
    with warnings.catch_warnings():
        # torch spends several lines on an old driver; `tell_unusable_gpu` says it in one.
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    if available:
        return "cuda"
    if device == "cuda":
        _, cuda = torch_build()
        if cuda:
            reason = _gpu_problem(nvidia_driver(), cuda) or "the driver shows one"
        else:
            reason = "it is built without CUDA"
        raise ConfigError(
            f"torch finds no CUDA device: {reason}.",
            hint="Choose --device cpu, or install torch with CUDA support.",
        )
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _mps(torch: Any) -> str:
    """Return "mps", the GPU of a Mac, or raise `ConfigError` where torch cannot use it."""
    if not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        reason = "this macOS or Mac has none" if built else "it is built without MPS"
        raise ConfigError(
            f"torch finds no MPS device: {reason}.",
            hint="Choose --device cpu; MPS needs a Mac with Apple silicon.",
        )
    return "mps"


def dtype_on(device: str) -> str:
    """Return torch's name of the type that towers compute in.

    float16 doubles the speed on CUDA; elsewhere it is float32.
    """
    return "float16" if device == "cuda" else "float32"


def choose_dtype(device: str, dtype: str) -> str:
    """Return torch's name of the type to compute in; "auto" is `dtype_on(device)`.

    Raises:
        ConfigError: unknown type, or "bfloat16" on a device that would emulate it.
    """
    check_dtype(dtype)
    if dtype == "bfloat16" and not has_bfloat16(device):
        raise ConfigError(
            f"The device {device} of this machine does not support bfloat16; emulating it would "
            "only be slower.",
            hint="Leave --dtype out. bfloat16 needs a processor with AMX, AVX512-BF16 or Arm's "
            "bf16, or an NVIDIA GPU of the Ampere generation or later.",
        )
    return dtype_on(device) if dtype == "auto" else dtype


def has_bfloat16(device: str) -> bool:
    """Return whether torch's "cpu" or "cuda" supports bfloat16 in hardware; False for others."""
    torch = import_torch()
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    try:
        flags = set(Path("/proc/cpuinfo").read_text("ascii", errors="replace").split())
    except OSError:  # not Linux
        return bool(torch.cpu._is_avx512_bf16_supported())
    return not flags.isdisjoint(_BFLOAT16_FLAGS)


def use_threads(n_threads: int) -> None:
    """Set the number of torch's threads in this process, whether torch is imported yet or not."""
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(n_threads)


def normalized(features: Tensor) -> Vectors:
    """Return (n, dim) float32 unit rows for (n, dim) features of any type, on any device."""
    from torch.nn.functional import normalize

    return normalize(features.float(), dim=-1).cpu().numpy()


def torch_provenance(device: str, *, dtype: str, batch_size: int) -> dict[str, str | int]:
    """Return how a tower computes, for the record of a shard; `dtype` is torch's name.

    Where two of these are equal, equal texts give equal bytes.
    """
    import torch

    return {
        "backend": "torch",
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
    }


def torch_build() -> tuple[str, str]:
    """Return the versions of torch and its CUDA, "" if absent, from files, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "", ""
    try:
        names = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    except (OSError, SyntaxError):
        return "", ""
    return str(names.get("__version__", "")), str(names.get("cuda") or "")


def auto_device(cuda: str) -> str:
    """Return what `choose_device("auto")` will take and why, in words, without importing torch.

    Args:
        cuda: the version of CUDA from `torch_build()`.
    """
    if (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        return "mps (the GPU of this Mac)"
    if not cuda:
        return "cpu (this torch is built without CUDA)"
    driver = nvidia_driver()
    if problem := _gpu_problem(driver, cuda):
        return f"cpu (torch is built for CUDA {cuda}; {problem})"
    return f"cuda ({driver.gpu}; torch for CUDA {cuda})"


def usable_gpu() -> bool:
    """Return whether torch is built for CUDA and the driver runs it; imports no torch."""
    _, cuda = torch_build()
    return bool(cuda) and not _gpu_problem(nvidia_driver(), cuda)


def tell_unusable_gpu(announce: Announce) -> None:
    """Announce that a torch built for CUDA cannot use the GPU that is present; imports no torch."""
    _, cuda = torch_build()
    driver = nvidia_driver() if cuda else None
    if driver is not None and driver.present and (problem := _gpu_problem(driver, cuda)):
        announce(f"torch cannot use the GPU: {problem}. Encoding on the CPU.")


def _gpu_problem(driver: NvidiaDriver, cuda: str) -> str:
    """Return why a torch built for that CUDA cannot use the GPU, "" if it can.

    A driver runs all builds up to the major version of its CUDA.
    """
    major = cuda.partition(".")[0]
    if driver.problem or not major.isdigit() or driver.cuda[0] >= int(major):
        return driver.problem
    return f"the driver of {driver.gpu} runs CUDA {driver.cuda[0]}.{driver.cuda[1]} at most"
