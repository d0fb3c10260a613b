"""OpenVINO for `lite`'s images: torch's rows, threads, no telemetry, and its absence."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from imprompt.core.errors import ConfigError
from imprompt.encoders.lite import load_lite
from imprompt.encoders.registry import load_encoder
from imprompt.encoders.torch_devices import choose_device
from tests.conftest import Imprompt
from tests.encoders.test_efficientnet import pictures


def test_it_sees_what_torch_sees() -> None:
    """Both trunks and heads in batches of several sizes: rows to 1e-6, also from four threads."""
    images = pictures(11)
    torch, other = load_lite(device="cpu").images, load_lite(device="openvino").images
    for rows in (
        other.encode(images),
        np.concatenate([other.encode(images[:3]), other.encode(images[3:])]),
    ):
        np.testing.assert_allclose(rows, torch.encode(images), atol=1e-6)
    np.testing.assert_allclose(other.output(images), torch.output(images), atol=1e-6)
    with ThreadPoolExecutor(4) as pool:
        for place, rows in enumerate(pool.map(lambda image: other.encode([image]), images)):
            np.testing.assert_allclose(rows[0], torch.encode(images)[place], atol=1e-6)


def test_everything_else_is_the_processor() -> None:
    """Texts are encoded by torch, to the bit."""
    assert choose_device("openvino") == "cpu"
    texts = ["a red cat", "a castle at night, oil on canvas"]
    assert (
        load_encoder("lite", device="openvino").texts.encode(texts)
        == load_encoder("lite", device="cpu").texts.encode(texts)
    ).all()


def test_its_report_is_not_sent() -> None:
    """Neither its import nor a network's translation opens a connection or loads what reports."""
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from imprompt.encoders.lite import load_lite\n"
        "from PIL import Image\n"
        "load_lite(device='openvino').images.encode([Image.new('RGB', (40, 40))])\n"
        "assert 'openvino' in sys.modules\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


def test_where_it_is_not_installed(
    imprompt: Imprompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named, before a picture is decoded."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match="device openvino needs a package"):
        _ = load_lite(device="openvino").images
    pictures(1)[0].save(tmp_path / "one.png")
    refused = imprompt(
        "embed",
        "--images",
        tmp_path / "one.png",
        "--out",
        tmp_path / "out.npy",
        "--device",
        "openvino",
    )
    assert refused.code == 10
    assert "imprompt[openvino]" in refused.err


def test_embed(imprompt: Imprompt, tmp_path: Path) -> None:
    """`embed --device openvino` writes the vectors that the processor gives, to 1e-6."""
    for number, picture in enumerate(pictures(5)):
        picture.save(tmp_path / f"{number}.png")
    for device in ("cpu", "openvino"):
        assert (
            imprompt(
                "embed",
                "--images",
                tmp_path,
                "--out",
                tmp_path / f"{device}.npy",
                "--device",
                device,
            ).code
            == 0
        )
    one, other = np.load(tmp_path / "cpu.npy"), np.load(tmp_path / "openvino.npy")
    assert one.shape == other.shape == (5, one.shape[1])
    np.testing.assert_allclose(one, other, atol=1e-6)
