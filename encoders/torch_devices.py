"""Which processor a tower runs on, and in which precision."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

from imprompt.core.device_names import PROCESSOR, NvidiaDriver, check_device, nvidia_driver
from imprompt.core.errors import ConfigError, EncoderError, first_line
from imprompt.core.hub.fetch import Announce


def import_torch() -> Any:
    """The module `torch`.

    Raises:
        EncoderError: it is not installed, or what it is made of cannot be loaded here.
    """
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        reason = first_line(error)
        hint = "Install it again: pip install --force-reinstall torch; pytorch.org lists the builds for each system."
        raise EncoderError(f"torch cannot be loaded: {reason}.", hint=hint) from error
    return torch


def choose_device(device: str) -> str:
    """ "cpu" or "cuda", of torch; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: another name, or "cuda" on a machine without it.
        EncoderError: torch cannot be loaded.
    """
    check_device(device)
    torch = import_torch()
    if device in PROCESSOR:
        return "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # several lines about a driver that is too old; `tell_unusable_gpu` says it in one
        available = torch.cuda.is_available()
    if available:
        return "cuda"
    if device == "cuda":
        _, cuda = torch_build()
        reason = (
            (_why_not(nvidia_driver(), cuda) or "the driver shows one")
            if cuda
            else "it is built without CUDA"
        )
        raise ConfigError(
            f"torch sees no CUDA device here: {reason}.",
            hint="Choose --device cpu, or install torch with CUDA support.",
        )
    return "cpu"


def dtype_on(device: str) -> str:
    """The name of torch's type that towers compute in: half precision on "cuda", where it is twice as fast or more."""
    return "float16" if device == "cuda" else "float32"


def use_threads(n_threads: int) -> None:
    """Let torch compute with so many threads from now on, in this process; it need not be imported yet."""
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(n_threads)


def torch_provenance(device: str, *, batch_size: int) -> dict[str, str | int]:
    """How a tower on torch computes, for the record of a shard: with all of it equal, equal texts give equal bytes."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    dtype = dtype_on(device)
    return {
        "backend": "torch",
        "device": name,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
    }


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
    driver = nvidia_driver()
    if problem := _why_not(driver, cuda):
        return f"cpu (torch is built for CUDA {cuda}; {problem})"
    return f"cuda ({driver.gpu}; torch for CUDA {cuda})"


def tell_unusable_gpu(announce: Announce) -> None:
    """A line where something that looks like a GPU is here and a torch with CUDA cannot use it; needs no torch."""
    _, cuda = torch_build()
    driver = nvidia_driver() if cuda else None
    if driver is not None and driver.present and (problem := _why_not(driver, cuda)):
        announce(f"torch cannot use the GPU: {problem}. The processor encodes.")


def _why_not(driver: NvidiaDriver, cuda: str) -> str:
    """Why a torch that is built for that CUDA has no GPU, "" where it has: drivers run what their own major version can."""
    wanted = cuda.partition(".")[0]
    if driver.problem or not wanted.isdigit() or driver.cuda[0] >= int(wanted):
        return driver.problem
    return f"the driver of {driver.gpu} runs CUDA {driver.cuda[0]}.{driver.cuda[1]} at most"
