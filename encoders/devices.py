"""Which processor a tower runs on."""

from __future__ import annotations

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
