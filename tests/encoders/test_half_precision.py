"""Towers on CUDA, as far as a CPU can show: float16, halved batches, unusable GPUs.

Torch computes float16 on a CPU, too, so the same code runs here with the same rounding of
weights and hidden states.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import imprompt.encoders.torch_devices
from imprompt.core.device_names import NvidiaDriver
from imprompt.core.errors import ConfigError, EncoderError
from imprompt.core.pip_lines import install_extra
from imprompt.core.values import Vectors
from imprompt.encoders.registry import load_encoder
from imprompt.encoders.torch_devices import (
    choose_device,
    dtype_on,
    has_bfloat16,
    import_torch,
    tell_unusable_gpu,
    torch_provenance,
)
from imprompt.indexer.provenance import TellsProvenance
from tests.assets.scenes import held_out_scenes
from tests.conftest import Imprompt
from tests.encoders.clip_models import ARCHITECTURES, write_hugging_face_model
from tests.encoders.transformers_models import MODELS

TEXTS = [
    "a red circle left of a blue square",
    "",
    "castle " * 400,
    "portrait of an old sailor, oil on canvas, 8 k",
]
OLD = NvidiaDriver("", present=True, gpu="Some GPU, 8 GiB", cuda=(11, 4))


def clip_texts(tiny_clip: Path) -> Vectors:
    return load_encoder(str(tiny_clip), device="cpu").texts.encode(TEXTS)


def clip_images(tiny_clip: Path) -> Vectors:
    return load_encoder(str(tiny_clip), device="cpu").images.encode(
        [picture for picture, _ in held_out_scenes(6)]
    )


@pytest.mark.parametrize("encode", [clip_texts, clip_images])
def test_half_precision_keeps_the_rows(
    encode: Callable[[Path], Vectors], tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With float16 an entry of a unit row stays within 1e-2, and rows are float32 of length 1."""
    single = encode(tiny_clip)
    monkeypatch.setattr("imprompt.encoders.torch_devices.dtype_on", lambda device: "float16")
    half = encode(tiny_clip)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - single).max() < 1e-2
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-5)
    assert (half * single).sum(axis=1).min() > 0.9995


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "hugging-face"])
def test_every_architecture_can_be_used_on_cuda(
    architecture: str,
    clip_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float16 within 1e-2, or in float32 where open_clip cannot halve it."""
    pictures = [scene for scene, _ in held_out_scenes(2)]
    if architecture == "hugging-face":
        folder = write_hugging_face_model(tmp_path / "model")
    else:
        folder = clip_folder(architecture)

    def rows() -> Vectors:
        encoder = load_encoder(str(folder), device="cpu", offline=True)
        return np.vstack([encoder.texts.encode(TEXTS), encoder.images.encode(pictures)])

    single = rows()
    monkeypatch.setattr("imprompt.encoders.torch_devices.dtype_on", lambda device: "float16")
    off = np.abs(rows() - single).max()
    single_precision = architecture in ("coca", "custom-text", "hugging-face")
    assert off == 0 if single_precision else 0 < off < 1e-2


@pytest.mark.parametrize(
    "architecture", [name for name in ARCHITECTURES if name not in ("coca", "custom-text")]
)
def test_bfloat16_is_that_of_open_clip(
    architecture: str, clip_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 2e-2, the rounding of 8 bits; spec and provenance record it, and the space is the same."""
    import open_clip

    monkeypatch.setattr("imprompt.encoders.torch_devices.has_bfloat16", lambda device: True)
    name = str(clip_folder(architecture))
    single = load_encoder(name, device="cpu", offline=True)
    rounded = load_encoder(name, device="cpu", dtype="bfloat16", offline=True)
    pictures = [scene for scene, _ in held_out_scenes(3)]
    model, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{name}", precision="bf16"
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{name}")
    with torch.no_grad():
        pixels = torch.stack([transform(picture) for picture in pictures]).to(torch.bfloat16)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True).float().numpy()
        images = model.encode_image(pixels, normalize=True).float().numpy()
    np.testing.assert_allclose(rounded.texts.encode(TEXTS), texts, atol=2e-2)
    np.testing.assert_allclose(rounded.images.encode(pictures), images, atol=2e-2)
    assert np.abs(rounded.texts.encode(TEXTS) - single.texts.encode(TEXTS)).max() > 1e-4
    assert (rounded.spec.dtype, single.spec.dtype) == ("bfloat16", "")
    assert rounded.spec.space == single.spec.space
    assert isinstance(rounded.texts, TellsProvenance)
    assert rounded.texts.provenance()["dtype"] == "bfloat16"


def test_bfloat16_is_refused_where_it_is_not_supported(
    clip_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device without it, for `lite`, and for models that open_clip computes in float32."""
    name = str(clip_folder("vit"))
    with pytest.raises(ConfigError, match=r"cannot compute in 'float8'.*float32, bfloat16"):
        load_encoder(name, device="cpu", dtype="float8")
    with pytest.raises(ConfigError, match="does not apply to lite"):
        load_encoder("lite", device="cpu", dtype="bfloat16")
    monkeypatch.setattr("imprompt.encoders.torch_devices.has_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match="does not support bfloat16"):
        load_encoder(name, device="cpu", dtype="bfloat16")
    monkeypatch.setattr("imprompt.encoders.torch_devices.has_bfloat16", lambda device: True)
    with pytest.raises(ConfigError, match="in float32 only"):
        load_encoder(str(clip_folder("coca")), device="cpu", dtype="bfloat16", offline=True)


def test_an_index_records_bfloat16(
    tiny_clip: Path, tmp_path: Path, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan, encoder and shards; each addition records its own type, and queries do not change."""
    monkeypatch.setattr("imprompt.encoders.torch_devices.has_bfloat16", lambda device: True)
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("a red fox in the snow\na castle on a hill\n")
    new.write_text("the sea at night, oil painting\n")
    options = ("--index", tmp_path / "index", "--device", "cpu", "--offline", "--json")
    words = ("build-index", "--encoder", tiny_clip, "--corpus", old, "--dtype", "bfloat16")
    built = imprompt(*words, *options).lines[-1]
    assert [encoder["dtype"] for encoder in built["encoders"]] == ["bfloat16", ""]
    assert built["plan"]["encoders"] == built["encoders"]
    added = imprompt("add", new, *options).lines[-1]["manifest"]
    clip, minilm = (encoder["space"] for encoder in built["encoders"])
    recorded = {
        space: [shard["provenance"]["dtype"] for shard in added["shards"][space]]
        for space in (clip, minilm)
    }
    assert recorded == {clip: ["bfloat16", "float32"], minilm: ["float32", "float32"]}
    (answer,) = imprompt("query", "--text", "a castle on a hill", *options).lines
    assert answer["nearest"][0]["prompt"] == "a castle on a hill"


def test_bfloat16_is_found_in_the_processor_flags() -> None:
    """On x86, Linux and torch report the same."""
    if platform.machine() == "x86_64":
        assert has_bfloat16("cpu") == (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    assert not has_bfloat16("mps")


@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers_can_be_used_on_cuda(
    name: str, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the 16-bit types vectors keep their directions, and rows have length 1."""
    folder = folder_of(name)
    pictures = [scene for scene, _ in held_out_scenes(2)]
    monkeypatch.setattr("imprompt.encoders.torch_devices.has_bfloat16", lambda device: True)

    def rows(dtype: str) -> Vectors:
        encoder = load_encoder(str(folder), device="cpu", dtype=dtype, offline=True)
        return np.vstack([encoder.texts.encode(TEXTS), encoder.images.encode(pictures)])

    single, bfloat16 = rows("auto"), rows("bfloat16")
    monkeypatch.setattr("imprompt.encoders.torch_devices.dtype_on", lambda device: "float16")
    for half, least in ((rows("auto"), 0.9995), (bfloat16, 0.97)):
        assert np.abs(half - single).max() > 0
        assert (half * single).sum(axis=1).min() > least
        np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-5)


def test_towers_compute_in_half_precision_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a shard's record says so, with the GPU's name."""
    assert dtype_on("cuda") == "float16"
    assert dtype_on("cpu") == "float32"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    told = torch_provenance("cuda", dtype="float16", batch_size=64)
    assert (told["device"], told["dtype"], told["batch_size"]) == ("Some GPU", "float16", 64)


def test_a_driver_that_is_too_old_takes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` falls back to the processor and says why; `cuda` is refused with the reason.

    torch's own paragraph is not shown.
    """
    said: list[str] = []
    monkeypatch.setattr(imprompt.encoders.torch_devices, "nvidia_driver", lambda: OLD)
    monkeypatch.setattr(imprompt.encoders.torch_devices, "torch_build", lambda: ("2.14.1", "13.0"))
    monkeypatch.setattr(
        torch.cuda,
        "is_available",
        lambda: bool(__import__("warnings").warn("too old", stacklevel=1)),
    )
    tell_unusable_gpu(said.append)
    assert said == [
        "torch cannot use the GPU: the driver of Some GPU, 8 GiB runs CUDA 11.4 at most. "
        "Encoding on the CPU."
    ]
    assert choose_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"runs CUDA 11\.4 at most.*--device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("driver", "build"),
    [
        (NvidiaDriver("there is no NVIDIA driver here", present=False), "13.0"),
        (NvidiaDriver("the driver shows no device", present=False), "13.0"),
        (NvidiaDriver("", present=True, gpu="Some GPU", cuda=(13, 1)), "13.0"),
        (OLD, ""),
    ],
)
def test_no_line_without_need(
    monkeypatch: pytest.MonkeyPatch, driver: NvidiaDriver, build: str
) -> None:
    """No line without a GPU, with a GPU that works, and for a torch that is built without CUDA."""
    said: list[str] = []
    monkeypatch.setattr(imprompt.encoders.torch_devices, "nvidia_driver", lambda: driver)
    monkeypatch.setattr(imprompt.encoders.torch_devices, "torch_build", lambda: ("2.14.1", build))
    tell_unusable_gpu(said.append)
    assert said == []


def test_a_torch_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library of its own ends in one line with a remedy."""

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        with pytest.raises(
            EncoderError, match=f"needs torch.*not installed.*{re.escape(install_extra('clip'))}"
        ):
            import_torch()

    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "torch":
                raise OSError("libtorch_cpu.so: cannot open shared object file\nand more")

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        EncoderError, match=r"torch cannot be loaded: libtorch_cpu.so.*pip install"
    ) as caught:
        import_torch()
    assert "\n" not in str(caught.value)
