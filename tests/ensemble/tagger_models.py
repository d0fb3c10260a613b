"""Random taggers in the layout of the wd family, written by the package onnx."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RATINGS = ("general", "sensitive", "questionable", "explicit")
GENERAL = ("1girl", "long_hair", "o_o", "outdoors", "||_||", 'say_"hi",_twice', "blue_sky", "solo")
CHARACTERS = ("hatsune_miku", "saber_(fate)", "reimu,_the_maid")


def write_tagger(
    folder: Path, *, seed: int = 1, side: int = 64, batch: int | str = "N", bias: float = 0.0
) -> Path:
    """Write model.onnx and selected_tags.csv; probabilities of random pictures are from 0 to 1."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tags(folder / "selected_tags.csv")
    n_tags = len(RATINGS) + len(GENERAL) + len(CHARACTERS)
    rng = np.random.default_rng(seed)
    n_features = 16
    weights = {
        "scale": np.array(1 / 255, np.float32),
        "kernel": rng.normal(0, 0.3, (n_features, 3, 8, 8)).astype(np.float32),
        "matrix": rng.normal(0, 2.0, (n_features, n_tags)).astype(np.float32),
        "bias": np.full(n_tags, bias, np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["input_1", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["patches"], strides=[8, 8]),
        helper.make_node("Relu", ["patches"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "matrix", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["predictions_sigmoid"]),
    ]
    save(
        folder / "model.onnx",
        nodes,
        [batch, side, side, 3],
        [batch, n_tags],
        weights=[numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return folder


def save(
    path: Path,
    nodes: Sequence[Any],
    takes: Sequence[int | str],
    gives: Sequence[int | str] | None,
    *,
    weights: Sequence[Any] = (),
    kind: int = TensorProto.FLOAT,
) -> None:
    """Write a graph from the first input of the first node to the first output of the last."""
    graph = helper.make_graph(
        list(nodes),
        "tagger",
        [helper.make_tensor_value_info(nodes[0].input[0], kind, takes)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, gives)],
        initializer=list(weights),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def write_tags(path: Path) -> None:
    """Write the table of tags; the ratings come first, as in the published ones."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["tag_id", "name", "category", "count"])
        for category, names in ((9, RATINGS), (0, GENERAL), (4, CHARACTERS)):
            for name in names:
                table.writerow([hash(name) % 10**6, name, category, 100])


def outside(location: str) -> Any:
    """A tensor whose numbers lie in another file."""
    tensor = TensorProto(name="bias", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def endless_loop(path: Path, *, side: int, n_tags: int) -> None:
    """Write a graph that never ends."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Neg", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [1, n_tags]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, n_tags]),
        ],
    )
    constants = {
        "times": np.array(1 << 60, np.int64),
        "yes": np.array(True),
        "zeros": np.zeros((1, n_tags), np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input_1"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "zeros"], ["start"]),
        helper.make_node("Loop", ["times", "yes", "start"], ["end"], body=body),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    save(path, nodes, ["N", side, side, 3], None, weights=weights)


def huge_constant(path: Path, *, side: int, n_numbers: int) -> None:
    """Write a small graph that asks for a large array."""
    nodes = [
        helper.make_node("ReduceMean", ["input_1"], ["mean"], keepdims=0),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["zeros", "mean"], ["sum"]),
        helper.make_node("ReduceMax", ["sum"], ["end"]),
    ]
    weights = [numpy_helper.from_array(np.array([n_numbers], np.int64), "shape")]
    save(path, nodes, ["N", side, side, 3], None, weights=weights)


def load(path: Path) -> Any:
    return onnx.load(path)
