"""MiniLM: our graph computes what sentence-transformers computes, from the pinned weights alone."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from imprompt.core.device_names import NvidiaDriver
from imprompt.core.errors import ConfigError, WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import silent
from imprompt.core.pip_lines import install_extra
from imprompt.core.values import Vectors
from imprompt.encoders.minilm import MAX_TOKENS, SPACE, MiniLM, OnnxMiniLM, load_minilm
from imprompt.encoders.minilm_torch import TorchMiniLM
from imprompt.encoders.weights import pinned_weights

TEXTS = [
    "a red circle left of a blue square",
    "",
    "   \n\t ",
    "portrait of an old sailor, oil on canvas, dramatic light, highly detailed, 8 k, "
    "trending on artstation",
    "Grüße aus 東京, naïve CAFÉ!!! ((masterpiece:1.3)) <lora:x:0.8>",
    "null \x00 byte and [SEP] and [PAD] inside",
    "castle " * 400,
    "cat",
]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return load_minilm(device="cpu")


@pytest.fixture
def kaggle_sample() -> Path:
    root = Path(
        os.environ.get(
            "IMPROMPT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"
        )
    )
    if not (root / "kaggle-sample" / "prompts.csv").is_file():
        pytest.skip("private test data is not on this machine")
    return root / "kaggle-sample"


def distance(left: Vectors, right: Vectors) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())


def test_rows_are_those_of_sentence_transformers(minilm: MiniLM) -> None:
    """Rows equal sentence-transformers' to 1e-6, for short, empty and cut texts."""
    from sentence_transformers import SentenceTransformer

    oracle = SentenceTransformer(str(pinned_weights("minilm").path.parent), device="cpu")
    assert oracle.max_seq_length == minilm.spec.max_tokens == MAX_TOKENS
    assert distance(minilm.encode(TEXTS), oracle.encode(TEXTS, show_progress_bar=False)) < 1e-6


def test_the_figures_of_the_competition_are_met(minilm: MiniLM, kaggle_sample: Path) -> None:
    """The competition's seven sample prompts give its `sample_submission.csv`."""
    with (kaggle_sample / "prompts.csv").open(newline="", encoding="utf-8") as file:
        prompts = {row["imgId"]: row["prompt"] for row in csv.DictReader(file)}
    with (kaggle_sample / "sample_submission.csv").open(newline="", encoding="utf-8") as file:
        expected = {row["imgId_eId"]: float(row["val"]) for row in csv.DictReader(file)}
    rows = minilm.encode(list(prompts.values()))
    found = {
        f"{image}_{column}": value
        for image, row in zip(prompts, rows, strict=True)
        for column, value in enumerate(row)
    }
    assert found.keys() == expected.keys()
    assert max(abs(found[key] - expected[key]) for key in expected) < 1e-6


def test_texts_are_counted_before_they_are_cut(minilm: MiniLM) -> None:
    """[CLS] and [SEP] count; what lies behind the 256th token does not change the row."""
    assert minilm.token_lengths(["", "a cat", "castle " * 400]).tolist() == [2, 4, 402]
    assert (
        distance(minilm.encode(["castle " * 254]), minilm.encode(["castle " * 254 + "zebra " * 50]))
        == 0
    )
    assert (
        distance(minilm.encode(["castle " * 253]), minilm.encode(["castle " * 253 + "zebra"]))
        > 1e-4
    )


def test_texts_alone_and_together(minilm: MiniLM) -> None:
    """A row depends on the texts beside it by rounding only, and order is kept."""
    together = minilm.encode(TEXTS)
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    assert distance(together, alone) < 1e-6
    assert distance(minilm.encode(TEXTS[::-1]), together[::-1]) == 0


def test_threads_change_rounding_only(minilm: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one thread and of two agree, and a shard's record tells how many there were."""
    rows = {}
    for number in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        encoder = load_minilm(device="cpu")
        rows[number] = encoder.encode(TEXTS)
        assert encoder.provenance()["threads"] == int(number)
    assert distance(rows["1"], rows["2"]) < 1e-6


def test_several_threads_may_ask(minilm: MiniLM) -> None:
    """Questions of a server's threads do not disturb one another."""
    expected = [minilm.encode([text]) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda text: minilm.encode([text]), TEXTS * 3))
    for place, row in enumerate(rows):
        assert distance(row, expected[place % len(TEXTS)]) == 0


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float16", 1e-3)])
def test_the_way_of_gpus(
    minilm: MiniLM, dtype: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sentence-transformers gives the same rows, counts and space, in both precisions.

    It computes them on this processor, as it would on a GPU.
    """
    monkeypatch.setattr("imprompt.encoders.minilm_torch.dtype_on", lambda device: dtype)
    other = TorchMiniLM(minilm.spec, device="cpu", announce=silent)
    rows = other.encode(TEXTS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert distance(rows, minilm.encode(TEXTS)) < limit
    assert (distance(rows, minilm.encode(TEXTS)) < 1e-6) == (dtype == "float32")
    assert other.token_lengths(TEXTS).tolist() == minilm.token_lengths(TEXTS).tolist()
    assert other.encode([]).shape == (0, 384)
    assert other.provenance()["backend"] == "torch"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU that torch's build runs on."""
    good = NvidiaDriver("", present=True, gpu="Some GPU", cuda=(13, 1))
    monkeypatch.setattr("imprompt.encoders.torch_devices.nvidia_driver", lambda: good)
    monkeypatch.setattr("imprompt.encoders.torch_devices.torch_build", lambda: ("2.14.1", "13.0"))


def test_a_gpu_takes_the_texts(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` uses the GPU where sentence-transformers is installed, `cpu` never."""
    monkeypatch.setattr("imprompt.encoders.minilm.choose_device", lambda device: "cuda")
    assert isinstance(load_minilm(device="auto"), TorchMiniLM)
    assert isinstance(load_minilm(device="cpu"), OnnxMiniLM)


def test_a_gpu_without_its_packages(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` says in one line what it takes; `cuda` is refused with the same line."""
    said: list[str] = []
    monkeypatch.setattr("imprompt.encoders.minilm.has_sentence_transformers", lambda: False)
    assert isinstance(load_minilm(device="auto", announce=said.append), OnnxMiniLM)
    assert len(said) == 1
    assert install_extra("torch") in said[0]
    with pytest.raises(
        ConfigError, match=f"sentence-transformers.*cuda.*{re.escape(install_extra('torch'))}"
    ):
        load_minilm(device="cuda")


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name.startswith("gt_all") else found(name)
    )


def test_weights_from_the_hub(
    minilm: MiniLM,
    hub: Callable[[str, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the package, the same files in the hub's cache give the same encoder."""
    folder = tmp_path / "model"
    folder.mkdir()
    for role in ("minilm", "minilm-tokenizer"):
        shutil.copy(pinned_weights(role).path, folder)
    without_package(monkeypatch)
    with pytest.raises(WeightsMissing, match="imprompt prefetch lite"):
        load_minilm(device="cpu")
    hub("sentence-transformers/all-MiniLM-L6-v2", folder)
    copy = load_minilm(device="cpu")
    assert "hub" in str(pinned_weights("minilm").path)
    assert copy.spec == minilm.spec
    assert copy.spec.space == SPACE
    assert distance(copy.encode(["a cat"]), minilm.encode(["a cat"])) == 0


def test_other_weights_are_refused(
    hub: Callable[[str, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the hub with other bytes, such as one that is cut short, is not loaded."""
    folder = tmp_path / "model"
    folder.mkdir()
    whole = pinned_weights("minilm").path.read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    without_package(monkeypatch)
    hub("sentence-transformers/all-MiniLM-L6-v2", folder)
    with pytest.raises(WeightsRejected, match="not the pinned 53aa51172d14"):
        load_minilm(device="cpu")


def test_provenance_tells_how_rows_are_computed(minilm: MiniLM) -> None:
    """A shard's record needs backend, device, dtype, threads and batch size."""
    told = minilm.provenance()
    assert (told["backend"], told["device"], told["dtype"], told["batch_size"]) == (
        "onnxruntime",
        "cpu",
        "float32",
        minilm.spec.batch_size,
    )


def test_an_unknown_device_is_refused() -> None:
    """The devices that exist are listed."""
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        load_minilm(device="tpu")
