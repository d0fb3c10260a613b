"""Names of devices, and what the NVIDIA driver reports, without importing a heavy library."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from imprompt.core.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16")
PROCESSOR = ("cpu",)
"""The devices that mean the CPU."""

NO_NVIDIA = (*PROCESSOR, "mps")
"""The devices for which FAISS, Ray and `plan` look for no NVIDIA GPU; "mps" is that of a Mac."""

WITHOUT_GPU = (
    "Choose --device auto, which uses the CPU for what the GPU cannot do, or --device cpu."
)
"""The remedy where `--device cuda` asks for more than the GPU can do."""

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE, also where CUDA_VISIBLE_DEVICES hides them all


def check_device(device: str) -> None:
    """Raise `ConfigError` for a name that is not in `DEVICES`."""
    if device not in DEVICES:
        raise ConfigError(
            f"No device is called {device!r}.", hint=f"Choose one of {', '.join(DEVICES)}."
        )


def check_dtype(dtype: str) -> None:
    """Raise `ConfigError` for a type that is not in `DTYPES`."""
    if dtype not in DTYPES:
        raise ConfigError(
            f"Encoders cannot compute in {dtype!r}.", hint=f"Choose one of {', '.join(DTYPES)}."
        )


@dataclass(frozen=True, slots=True)
class NvidiaDriver:
    """What the driver reports about its first GPU.

    `problem` says why there is no usable GPU, "" if there is one; `present` is True if some GPU
    seems to be there nevertheless. `gpu` is its name and memory, `memory_bytes` the memory alone,
    `cuda` the newest CUDA version that the driver runs, such as (12, 4).
    """

    problem: str
    present: bool
    gpu: str = ""
    cuda: tuple[int, int] = (0, 0)
    memory_bytes: int = 0


def nvidia_driver() -> NvidiaDriver:
    """Ask the driver for its first GPU; creates no context and takes no memory on the GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return NvidiaDriver("there is no NVIDIA driver here", present=False)
    code = driver.cuInit(0)
    if code not in (0, _NO_DEVICE):
        return NvidiaDriver(f"the NVIDIA driver does not start (CUDA error {code})", present=True)
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    if code == _NO_DEVICE or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return NvidiaDriver("the driver shows no device", present=False)
    driver.cuDriverGetVersion(ctypes.byref(version))
    device, name, memory = ctypes.c_int(0), ctypes.create_string_buffer(128), ctypes.c_size_t(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    gpu = f"{name.value.decode(errors='replace')}, {memory.value / 2**30:.0f} GiB"
    newest = version.value // 1000, version.value % 1000 // 10
    return NvidiaDriver("", present=True, gpu=gpu, cuda=newest, memory_bytes=memory.value)
