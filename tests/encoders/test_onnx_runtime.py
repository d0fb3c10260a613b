"""ONNX Runtime: graphs that fit their weights, threads, memory, and its absence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imprompt.core.device_names import NvidiaDriver
from imprompt.core.errors import EncoderError, WeightsMissing, WeightsRejected
from imprompt.encoders.efficientnet import EfficientNetLite, read_trunk
from imprompt.encoders.graphs import write_graphs
from imprompt.encoders.lite import load_lite
from imprompt.encoders.onnx_runtime import GRAPHS, Graph, import_onnxruntime, n_threads, onnx_device
from imprompt.encoders.weights import pinned_weights

WEIGHTS = "efficientnet-lite0"


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return read_trunk("lite0", pinned_weights(WEIGHTS))


def load(path: Path, tensors: dict[str, np.ndarray]) -> Graph:
    return Graph(path, tensors, weights=pinned_weights(WEIGHTS).path)


def test_the_graphs_are_what_the_script_writes(tmp_path: Path) -> None:
    """Every graph and every place of a tensor, to the byte."""
    write_graphs.write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(written) == [
        "lite0.json",
        "lite0.onnx",
        "lite2.json",
        "lite2.onnx",
        "minilm.onnx",
    ]
    for name, content in written.items():
        assert (GRAPHS / name).read_bytes() == content, f"run {write_graphs.__file__}"


def test_graphs_hold_no_weights() -> None:
    """They are small, and all of their weights are declared as lying elsewhere."""
    import onnx

    for path in GRAPHS.glob("*.onnx"):
        graph = onnx.load(path, load_external_data=False).graph
        inside = [tensor for tensor in graph.initializer if tensor.data_location != tensor.EXTERNAL]
        assert path.stat().st_size < 64_000
        assert len(graph.initializer) > 50
        assert sum(len(tensor.raw_data) for tensor in inside) < 100


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_a_damaged_graph_is_refused(
    damage: str, tensors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """In one line that names both files."""
    whole = (GRAPHS / "lite0.onnx").read_bytes()
    content = {
        "cut": whole[: len(whole) // 2],
        "other": (GRAPHS / "lite2.onnx").read_bytes(),
        "text": b"no graph",
    }
    path = tmp_path / "lite0.onnx"
    path.write_bytes(content[damage])
    with pytest.raises(
        WeightsRejected, match=r"lite0\.onnx does not fit the weights .*\.pth"
    ) as no:
        load(path, tensors)
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("change", ["missing", "shape", "unknown"])
def test_weights_that_do_not_fit_are_refused(change: str, tensors: dict[str, np.ndarray]) -> None:
    """A tensor too few, one too many, and one of another shape."""
    others = dict(tensors)
    if change == "missing":
        del others["_fc.bias"]
    elif change == "shape":
        others["_fc.bias"] = np.zeros(7, dtype=np.float32)
    else:
        others["_fc.more"] = np.zeros(7, dtype=np.float32)
    with pytest.raises(WeightsRejected, match="does not fit"):
        load(GRAPHS / "lite0.onnx", others)


def test_a_missing_graph(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    """A damaged installation is named as one."""
    with pytest.raises(WeightsMissing, match="Install imprompt again"):
        load(tmp_path / "lite0.onnx", tensors)


def test_tensors_that_lie_outside_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of places that was made for another file ends in one line."""
    (tmp_path / "lite0.json").write_text(
        '{"a": {"offset": 99999999, "shape": [2], "strides": [4]}}'
    )
    monkeypatch.setattr("imprompt.encoders.efficientnet.GRAPHS", tmp_path)
    with pytest.raises(WeightsRejected, match=r"lite0\.json"):
        read_trunk("lite0", pinned_weights(WEIGHTS))


def test_a_full_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunks continue with half the batch, announce it, and give the same rows."""
    said: list[str] = []
    pictures = [Image.new("RGB", (60, 40), (40 * i, 90, 250 - 40 * i)) for i in range(4)]
    trunk = EfficientNetLite("lite0", announce=said.append)
    whole = trunk.activations(pictures)

    class Session:
        def __init__(self, session: object) -> None:
            self.session = session

        def run(self, names: None, given: dict[str, np.ndarray]) -> object:
            if len(given["pixels"]) > 2:
                raise Exception("[ONNXRuntimeError] : 6 : Failed to allocate memory for a buffer")
            return self.session.run(names, given)  # type: ignore[attr-defined]

    monkeypatch.setattr(trunk._network, "_session", Session(trunk._network._session))
    seen = trunk.activations(pictures)
    np.testing.assert_allclose(seen.pooled, whole.pooled, atol=1e-5)
    assert said == ["A batch of 4 does not fit into memory; continuing with 2."]


def test_what_else_fails_is_one_line(tensors: dict[str, np.ndarray]) -> None:
    """An input of the wrong kind is the library's error, said as ours."""
    network = load(GRAPHS / "lite0.onnx", tensors)
    with pytest.raises(EncoderError, match="ONNX Runtime fails: ") as no:
        network(np.zeros((1, 224, 224, 3), dtype=np.float32))
    assert "\n" not in str(no.value)


def test_an_old_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version, the oldest that is needed, and the remedy."""
    monkeypatch.setattr("onnxruntime.__version__", "1.19.2")
    with pytest.raises(EncoderError, match=r"1\.19\.2; imprompt needs 1\.\d+ or newer.*--upgrade"):
        import_onnxruntime()


def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the remedy."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EncoderError, match=r"cannot be loaded: .*pip install") as no:
        load_lite(device="cpu").minilm.encode(["a cat"])
    assert "\n" not in str(no.value)


@pytest.mark.parametrize(("chosen", "expected"), [("3", 3), ("0", None), ("", None), ("x", None)])
def test_threads(chosen: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS counts if it is a number; else the processors that the process may use."""
    monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert n_threads() == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("device", "gpu", "provider", "expected", "words"),
    [
        ("cpu", True, True, "cpu", ""),
        ("mps", True, True, "cpu", "does not run on mps"),
        ("auto", False, False, "cpu", ""),
        ("auto", False, True, "cpu", ""),
        ("auto", True, True, "cuda", ""),
        ("auto", True, False, "cpu", "onnxruntime-gpu"),
        ("cuda", True, False, "cpu", "onnxruntime-gpu"),
        ("cuda", False, True, "cpu", "there is no NVIDIA driver here"),
        ("cuda", True, True, "cuda", ""),
    ],
)
def test_where_images_are_encoded(
    device: str,
    gpu: bool,
    provider: bool,
    expected: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the GPU if there is one and the package for it; a GPU that is not used is said."""
    driver = (
        NvidiaDriver("", present=True, gpu="Some GPU", cuda=(13, 1))
        if gpu
        else NvidiaDriver("there is no NVIDIA driver here", present=False)
    )
    providers = ["CUDAExecutionProvider"] if provider else ["CPUExecutionProvider"]
    monkeypatch.setattr("imprompt.encoders.onnx_runtime.nvidia_driver", lambda: driver)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    said: list[str] = []
    assert onnx_device(device, announce=said.append) == expected
    assert len(said) == bool(words)
    assert words in "".join(said)


def test_it_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry is off before the library is imported, and no file of it is left behind.

    Where it is on, it leaves a session file and an identity. It is not on everywhere, so this test
    does not ask what the library does alone.
    """
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data"}
    for name in places.values():
        (tmp_path / name).mkdir()
    environment = {**os.environ}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    environment |= {name: str(tmp_path / folder) for name, folder in places.items()}
    code = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("before the import:", os.environ.get("ORT_DISABLE_TELEMETRY"))

sys.meta_path.insert(0, Watch())
from PIL import Image
from imprompt.encoders.lite import load_lite
load_lite(device="cpu").images.encode([Image.new("RGB", (40, 40))])
assert "onnxruntime" in sys.modules
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "before the import: 1"
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert not [name for name in left if len(name) != 64], left  # digests of weights alone
