"""Write the networks of `lite` as ONNX graphs without weights, and where the weights lie.

    python encoders/graphs/write_graphs.py [FOLDER]

FOLDER (this one by default) gets `minilm.onnx`, `lite0.onnx`, `lite2.onnx`, and for the two image
trunks `lite0.json` and `lite2.json`: offset, shape and strides of each tensor in the pinned file of
torch, so that it is read as numbers and never unpickled. A test writes them anew and compares. It
needs onnx and torch; imprompt itself needs neither.

Networks: BERT of Devlin et al. 2018 (arXiv:1810.04805) with mean pooling (Reimers and Gurevych
2019, arXiv:1908.10084); EfficientNet of Tan and Le 2019 (arXiv:1905.11946) in its Lite variants
(ReLU6, no squeeze and excitation; tensorflow/tpu, models/official/efficientnet/lite).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from imprompt.encoders.efficientnet import SIDE_PX
from imprompt.encoders.weights import pinned_weights

OPSET = 23
IR_VERSION = 11

MINILM_LAYERS, MINILM_HEADS, MINILM_DIM, MINILM_WIDE = 6, 12, 384, 1536
MINILM_WORDS, MINILM_POSITIONS = 30_522, 512
MINILM_EPSILON = 1e-12

BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Of EfficientNet-B0, a stage a row: repeats, kernel, stride, expansion, output channels."""
STEM, HEAD, CLASSES = 32, 1280, 1000
WIDTH_AND_DEPTH = {"lite0": (1.0, 1.0), "lite2": (1.1, 1.2)}
TRUNK_EPSILON = 1e-3
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0


class GraphWriter:
    """Collects nodes, constants and the declarations of weights."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}

    def add(self, kind: str, *inputs: str, output: str, **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def weight(self, name: str, *shape: int) -> str:
        """Declare a float32 tensor that is given when the graph is loaded; return its name."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
        self._tensors[name] = tensor
        return name

    def constant(self, name: str, value: object, dtype: type[np.generic]) -> str:
        """Return the name of a small constant that is part of the graph."""
        self._tensors[name] = numpy_helper.from_array(np.array(value, dtype=dtype), name)
        return name

    def model(self, name: str, given: onnx.ValueInfoProto, result: onnx.ValueInfoProto) -> bytes:
        """Return the checked model's bytes."""
        graph = helper.make_graph(
            self._nodes, name, [given], [result], list(self._tensors.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="imprompt",
        )
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def minilm() -> bytes:
    """Return MiniLM: (n, length) int64 tokens of texts of one length to (n, 384) unit rows."""
    graph = GraphWriter()
    words = graph.weight("embeddings.word_embeddings.weight", MINILM_WORDS, MINILM_DIM)
    positions = graph.weight("embeddings.position_embeddings.weight", MINILM_POSITIONS, MINILM_DIM)
    segments = graph.weight("embeddings.token_type_embeddings.weight", 2, MINILM_DIM)
    zero = graph.constant("zero", 0, np.int64)
    first = graph.constant("first", [0], np.int64)
    length = graph.add("Shape", "tokens", output="length", start=1, end=2)
    placed = graph.add(
        "Add",
        graph.add("Slice", positions, first, length, first, output="positions"),
        graph.add("Gather", segments, zero, output="segment", axis=0),  # there is one segment
        output="placed",
    )
    embedded = graph.add("Gather", words, "tokens", output="words", axis=0)
    hidden = _norm(
        graph, graph.add("Add", embedded, placed, output="embedded"), "embeddings.LayerNorm"
    )
    for number in range(MINILM_LAYERS):
        hidden = _layer(graph, hidden, f"encoder.layer.{number}.")
    mean = graph.add(
        "ReduceMean", hidden, graph.constant("tokens_axis", [1], np.int64), output="mean",
        keepdims=0,
    )  # fmt: skip
    graph.add("LpNormalization", mean, output="rows", axis=1, p=2)
    return graph.model(
        "minilm",
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "length"]),
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", MINILM_DIM]),
    )


def _layer(graph: GraphWriter, hidden: str, prefix: str) -> str:
    queries, keys, values = (
        _linear(graph, hidden, f"{prefix}attention.self.{name}", MINILM_DIM, MINILM_DIM)
        for name in ("query", "key", "value")
    )
    attended = graph.add(
        "Attention", queries, keys, values, output=f"{prefix}attended",
        q_num_heads=MINILM_HEADS, kv_num_heads=MINILM_HEADS,
    )  # fmt: skip
    mixed = _linear(graph, attended, f"{prefix}attention.output.dense", MINILM_DIM, MINILM_DIM)
    hidden = _norm(
        graph,
        graph.add("Add", mixed, hidden, output=f"{prefix}attention.sum"),
        f"{prefix}attention.output.LayerNorm",
    )
    wide = _linear(graph, hidden, f"{prefix}intermediate.dense", MINILM_DIM, MINILM_WIDE)
    narrow = _linear(
        graph,
        graph.add("Gelu", wide, output=f"{prefix}gelu"),
        f"{prefix}output.dense",
        MINILM_WIDE,
        MINILM_DIM,
    )
    return _norm(
        graph,
        graph.add("Add", narrow, hidden, output=f"{prefix}output.sum"),
        f"{prefix}output.LayerNorm",
    )


def _linear(graph: GraphWriter, hidden: str, name: str, n_inputs: int, n_outputs: int) -> str:
    weight = graph.weight(f"{name}.weight", n_outputs, n_inputs)
    transposed = graph.add("Transpose", weight, output=f"{name}.transposed", perm=[1, 0])
    product = graph.add("MatMul", hidden, transposed, output=f"{name}.product")
    return graph.add("Add", product, graph.weight(f"{name}.bias", n_outputs), output=name)


def _norm(graph: GraphWriter, hidden: str, name: str) -> str:
    return graph.add(
        "LayerNormalization",
        hidden,
        graph.weight(f"{name}.weight", MINILM_DIM),
        graph.weight(f"{name}.bias", MINILM_DIM),
        output=name,
        axis=-1,
        epsilon=MINILM_EPSILON,
    )


def trunk(name: str, side_px: int) -> bytes:
    """Return a trunk: (n, side, side, 3) uint8 pixels to (n, 1280 + stages + 1000) activations.

    A row has the means over the image of the last layer and of the ends of the stages, and the
    logits of the ImageNet classes.
    """
    graph = GraphWriter()
    numbers = graph.add("Cast", "pixels", output="numbers", to=TensorProto.FLOAT)
    shifted = graph.add(
        "Sub", numbers, graph.constant("pixel_mean", PIXEL_MEAN, np.float32), output="shifted"
    )
    scaled = graph.add(
        "Div", shifted, graph.constant("pixel_scale", PIXEL_SCALE, np.float32), output="scaled"
    )
    hidden = graph.add("Transpose", scaled, output="planes", perm=[0, 3, 1, 2])
    hidden, side = _convolution(
        graph, hidden, "_conv_stem", "_bn0", 3, STEM, kernel=3, stride=2, side=side_px
    )
    n_inputs, stages = STEM, []
    blocks = list(_blocks(name))
    for number, (kernel, stride, expansion, n_outputs, ends_stage) in enumerate(blocks):
        prefix, start, wide = f"_blocks.{number}.", hidden, n_inputs * expansion
        if expansion != 1:
            hidden, side = _convolution(
                graph, hidden, f"{prefix}_expand_conv", f"{prefix}_bn0", n_inputs, wide, side=side
            )
        hidden, side = _convolution(
            graph, hidden, f"{prefix}_depthwise_conv", f"{prefix}_bn1", wide, wide,
            kernel=kernel, stride=stride, groups=wide, side=side,
        )  # fmt: skip
        hidden, side = _convolution(
            graph, hidden, f"{prefix}_project_conv", f"{prefix}_bn2", wide, n_outputs, side=side,
            relu6=False,
        )  # fmt: skip
        if stride == 1 and n_inputs == n_outputs:
            hidden = graph.add("Add", hidden, start, output=f"{prefix}sum")
        if ends_stage:
            stages.append(_mean(graph, hidden, f"{prefix}mean"))
        n_inputs = n_outputs
    hidden, _ = _convolution(graph, hidden, "_conv_head", "_bn1", n_inputs, HEAD, side=side)
    pooled = _mean(graph, hidden, "pooled")
    logits = graph.add(
        "Gemm", pooled, graph.weight("_fc.weight", CLASSES, HEAD),
        graph.weight("_fc.bias", CLASSES), output="logits", transB=1,
    )  # fmt: skip
    graph.add("Concat", pooled, *stages, logits, output="activations", axis=1)
    width = HEAD + sum(n_outputs for *_, n_outputs, ends in blocks if ends) + CLASSES
    return graph.model(
        name,
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side_px, side_px, 3]),
        helper.make_tensor_value_info("activations", TensorProto.FLOAT, ["n", width]),
    )


def _blocks(name: str) -> Iterator[tuple[int, int, int, int, bool]]:
    """Yield (kernel, stride, expansion, output channels, whether it ends a stage) of each block.

    The Lite variants do not repeat the first and the last stage more often, nor widen the stem.
    """
    width, depth = WIDTH_AND_DEPTH[name]
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(BLOCKS):
        at_an_end = number in (0, len(BLOCKS) - 1)
        times = repeats if at_an_end else math.ceil(depth * repeats)
        n_outputs = max(8, int(channels * width + 4) // 8 * 8)
        if n_outputs < 0.9 * channels * width:
            n_outputs += 8
        for time in range(times):
            yield kernel, stride if time == 0 else 1, expansion, n_outputs, time == times - 1


def _convolution(
    graph: GraphWriter,
    hidden: str,
    name: str,
    norm: str,
    n_inputs: int,
    n_outputs: int,
    *,
    side: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    relu6: bool = True,
) -> tuple[str, int]:
    """Add a convolution, its norm and ReLU6; return the output's name and its side in pixels.

    It is padded to ceil(side / stride), the odd pixel at the end, as TensorFlow does.
    """
    side_after = math.ceil(side / stride)
    padding = max((side_after - 1) * stride + kernel - side, 0)
    before, after = padding // 2, padding - padding // 2
    hidden = graph.add(
        "Conv", hidden,
        graph.weight(f"{name}.weight", n_outputs, n_inputs // groups, kernel, kernel),
        output=name, kernel_shape=[kernel, kernel], strides=[stride, stride], group=groups,
        pads=[before, before, after, after],
    )  # fmt: skip
    hidden = graph.add(
        "BatchNormalization",
        hidden,
        *(
            graph.weight(f"{norm}.{part}", n_outputs)
            for part in ("weight", "bias", "running_mean", "running_var")
        ),
        output=norm,
        epsilon=TRUNK_EPSILON,
    )
    if relu6:
        lowest = graph.constant("zero", 0, np.float32)
        highest = graph.constant("six", 6, np.float32)
        hidden = graph.add("Clip", hidden, lowest, highest, output=f"{norm}.relu6")
    return hidden, side_after


def _mean(graph: GraphWriter, hidden: str, name: str) -> str:
    pooled = graph.add("GlobalAveragePool", hidden, output=f"{name}.pooled")
    return graph.add("Flatten", pooled, output=name, axis=1)


def tensor_places(path: Path) -> dict[str, dict[str, object]]:
    """Return offset, shape and strides, in bytes, of each float32 tensor of a file of torch < 1.6.

    Such a file holds every tensor's numbers as they are; the place of a run of bytes is where they
    are found.
    """
    content = path.read_bytes()
    places = {}
    for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items():
        if tensor.dtype is not torch.float32:
            continue
        numbers = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
        offset = content.index(numbers.tobytes()) + tensor.storage_offset() * tensor.itemsize
        strides = [step * tensor.itemsize for step in tensor.stride()]
        found = np.ndarray(tuple(tensor.shape), "<f4", content, offset, strides)
        np.testing.assert_array_equal(found, tensor.numpy())
        places[name] = {"offset": offset, "shape": list(tensor.shape), "strides": strides}
    return places


def write(folder: Path) -> None:
    """Write all files into a folder."""
    (folder / "minilm.onnx").write_bytes(minilm())
    for name, side_px in SIDE_PX.items():
        write_trunk(folder, name, side_px)
        places = tensor_places(pinned_weights(f"efficientnet-{name}").path)
        lines = [f"{json.dumps(key)}: {json.dumps(place)}" for key, place in places.items()]
        (folder / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_trunk(folder: Path, name: str, side_px: int) -> None:
    """Write the graph of a trunk for images of another side into a folder."""
    (folder / f"{name}.onnx").write_bytes(trunk(name, side_px))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
