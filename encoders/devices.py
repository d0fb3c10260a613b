"""Which processor a tower runs on."""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
from pathlib import Path

from core.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def check_device(device: str) -> None:
    """Raise ConfigError for a name that `choose_device` does not know; needs no torch."""
    if device not in DEVICES:
        raise ConfigError(f"no device is called {device!r}.", hint=f"Choose one of {', '.join(DEVICES)}.")


def choose_device(device: str) -> str:
    """ "cpu" or "cuda"; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: another name, or "cuda" on a machine without it.
    """
    check_device(device)
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ConfigError("torch sees no CUDA device here.", hint="Choose --device cpu, or install torch with CUDA support.")
    return "cpu"


def torch_provenance(device: str, *, dtype: str, batch_size: int) -> dict[str, str | int]:
    """How a tower on torch computes, for the record of a shard: with all of it equal, equal texts give equal bytes."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"backend": "torch", "device": name, "dtype": dtype, "threads": torch.get_num_threads(), "batch_size": batch_size}


def torch_build() -> tuple[str, str]:
    """(version, version of CUDA) of the installed torch, each "" where there is none; read from its files in milliseconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "", ""
    try:
        told = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    except (OSError, SyntaxError):
        return "", ""
    return str(told.get("__version__", "")), str(told.get("cuda") or "")


def auto_device(cuda: str) -> str:
    """What `choose_device("auto")` is going to take, and why, in words; `cuda` is `torch_build()`'s.

    The driver is asked for its devices and their memory, without torch.
    """
    if not cuda:
        return "cpu (this torch is built without CUDA)"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return f"cpu (torch is built for CUDA {cuda}; there is no NVIDIA driver here)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return f"cpu (torch is built for CUDA {cuda}; the driver shows no device)"
    device, name, memory = ctypes.c_int(0), ctypes.create_string_buffer(128), ctypes.c_size_t(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return f"cuda ({name.value.decode(errors='replace')}, {memory.value / 2**30:.0f} GiB; torch for CUDA {cuda})"
