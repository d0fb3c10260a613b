"""MiniLM: our forward pass is sentence-transformers' own, and other models are told from it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imprompt.core.errors import ConfigError, WeightsMissing, WeightsRejected
from imprompt.core.values import Vectors
from imprompt.encoders.minilm import MAX_TOKENS, SPACE, MiniLM, load_minilm
from imprompt.encoders.weights import packaged_weights

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
def folder(tmp_path: Path) -> Path:
    """A local copy of the model, as a user would have downloaded it."""
    copy = tmp_path / "model"
    shutil.copytree(packaged_weights("minilm").path.parent, copy)
    return copy


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

    oracle = SentenceTransformer(str(packaged_weights("minilm").path.parent), device="cpu")
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


def test_a_local_copy_is_the_same_space(minilm: MiniLM, folder: Path) -> None:
    """The space goes by the bytes of the weights, wherever they lie."""
    copy = load_minilm(folder, device="cpu")
    assert copy.spec == minilm.spec
    assert copy.spec.space == SPACE
    assert distance(copy.encode(["a cat"]), minilm.encode(["a cat"])) == 0


def change_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_other_weights_are_another_space(folder: Path) -> None:
    """A fine-tuned model of the same architecture is no MiniLM."""
    change_weights(
        folder,
        lambda tensors: tensors.update(
            {"embeddings.LayerNorm.bias": tensors["embeddings.LayerNorm.bias"] + 1}
        ),
    )
    tuned = load_minilm(folder, device="cpu")
    assert tuned.spec.space.startswith("bert-")
    assert tuned.encode(["a cat"]).shape == (1, 384)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    """The first tensor that differs is named, with both shapes."""
    change_weights(
        folder,
        lambda tensors: tensors.update(
            {"encoder.layer.2.output.dense.bias": np.zeros(7, np.float32)}
        ),
    )
    with pytest.raises(
        WeightsRejected,
        match=r"encoder\.layer\.2\.output\.dense\.bias should be \(384,\), is \(7,\)",
    ):
        load_minilm(folder, device="cpu").encode(["a"])


def test_lacking_weights_are_refused(folder: Path) -> None:
    """A tensor that is not there is named."""
    change_weights(folder, lambda tensors: tensors.pop("encoder.layer.5.output.LayerNorm.weight"))
    with pytest.raises(
        WeightsRejected,
        match=r"encoder\.layer\.5\.output\.LayerNorm\.weight should be \(384,\), is missing",
    ):
        load_minilm(folder, device="cpu").encode(["a"])


@pytest.mark.parametrize(
    ("file", "content"), [("model.safetensors", b"no tensors"), ("tokenizer.json", b"{}")]
)
def test_damaged_files_are_refused(folder: Path, file: str, content: bytes) -> None:
    """The file stands in the error."""
    (folder / file).write_bytes(content)
    with pytest.raises(WeightsRejected, match=file):
        load_minilm(folder, device="cpu").encode(["a"])


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
    ],
)
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    """Each of the five files that the model consists of is needed."""
    (folder / file).unlink()
    with pytest.raises(WeightsMissing, match=file):
        load_minilm(folder, device="cpu")


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"model_type": "mpnet"}, "mpnet"),
        ("config.json", {"hidden_act": "relu"}, "relu"),
        ("config.json", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("config.json", {"hidden_size": "wide"}, "config.json"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "mean"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "mean"),
    ],
)
def test_another_architecture_is_refused(
    folder: Path, file: str, change: dict[str, object], words: str
) -> None:
    """A network or pooling that we do not compute is an error, not a wrong vector."""
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **change}))
    with pytest.raises(WeightsRejected, match=words):
        load_minilm(folder, device="cpu")


def test_provenance_tells_how_rows_are_computed(minilm: MiniLM) -> None:
    """A shard's record needs backend, device, dtype, threads and batch size."""
    told = minilm.provenance()
    assert (told["backend"], told["device"], told["dtype"], told["batch_size"]) == (
        "torch",
        "cpu",
        "float32",
        minilm.spec.batch_size,
    )


def test_an_unknown_device_is_refused() -> None:
    """The devices that exist are listed."""
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        load_minilm(device="tpu")
