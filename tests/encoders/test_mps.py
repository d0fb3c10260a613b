"""The GPU of a Mac: chosen after CUDA, in float32. No model was run on one."""

from __future__ import annotations

import platform

import pytest

from imprompt.core.device_names import DEVICES
from imprompt.core.errors import ConfigError
from imprompt.encoders.torch_devices import auto_device, choose_device, dtype_on
from imprompt.store.gpu import opened_gpu


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(False, False, "cpu"), (False, True, "mps"), (True, True, "cuda"), (True, False, "cuda")],
)
def test_auto_takes_cuda_then_mps(
    cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the CPU where there is neither."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"
    if mps:
        assert choose_device("mps") == "mps"
    assert dtype_on("mps") == "float32"


@pytest.mark.parametrize(
    ("built", "reason"), [(False, "it is built without MPS"), (True, "this macOS or Mac has none")]
)
def test_mps_that_is_not_there(built: bool, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the reason and the remedy; `auto` takes the CPU."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_built", lambda: built)
    with pytest.raises(ConfigError, match=rf"no MPS device: {reason}\. Choose --device cpu"):
        choose_device("mps")


def test_faiss_stays_on_the_processor() -> None:
    """It has no code for that GPU, and no NVIDIA driver is asked."""
    assert "mps" in DEVICES
    with opened_gpu("mps") as gpu:
        assert gpu is None


def test_doctor_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac with Apple silicon, without an import of torch."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert auto_device("") == "mps (the GPU of this Mac)"
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert auto_device("").startswith("cpu")
