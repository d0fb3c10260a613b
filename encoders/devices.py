"""Which processor a tower runs on."""

from __future__ import annotations

from core.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(device: str) -> str:
    """ "cpu" or "cuda"; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: another name, or "cuda" on a machine without it.
    """
    if device not in DEVICES:
        raise ConfigError(f"no device is called {device!r}.", hint=f"Choose one of {', '.join(DEVICES)}.")
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ConfigError("torch sees no CUDA device here.", hint="Choose --device cpu, or install torch with CUDA support.")
    return "cpu"
