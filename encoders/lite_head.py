"""The head's file: the small trained part of `lite`, and the constants that its two spaces stand on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import FormatVersion, WeightsMissing, WeightsRejected
from core.files import atomic_write
from core.values import Vectors, unit_rows
from encoders.efficientnet import CLASSES, POOLED_DIM, Activations

FORMAT = (1, 0)
TEXT_DIM = 384
FEATURE_DIM = POOLED_DIM + CLASSES + TEXT_DIM
_CONSE_TOP = 10
_SHAPES = {
    "class_vectors": (CLASSES, TEXT_DIM),
    "weight": (FEATURE_DIM, TEXT_DIM),
    "bias": (TEXT_DIM,),
    "text_mean": (TEXT_DIM,),
}


@dataclass(frozen=True, slots=True)
class LiteHead:
    """A linear map from what the image trunk sees to MiniLM space, and the mean that the index space leaves out.

    `class_vectors` (1000, 384) are MiniLM's unit vectors of the ImageNet classes' names, `weight` (2664, 384) and `bias`
    (384,) map features to MiniLM space, `text_mean` (384,) is the mean of MiniLM's vectors of real prompts.
    `weights_sha256` are the digests of the backbones that it was trained with, `training` says on what.
    """

    class_vectors: NDArray[np.float32]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    text_mean: NDArray[np.float32]
    weights_sha256: dict[str, str]
    training: dict[str, str] = field(default_factory=dict)

    @property
    def space(self) -> str:
        """The name of the index space: it is the mean that two vectors have to share to be compared."""
        return f"lite-{hashlib.sha256(self.text_mean.tobytes()).hexdigest()[:12]}"

    def outputs(self, seen: Activations) -> Vectors:
        """(n, 384) unit rows in MiniLM's own space."""
        return unit_rows(self._estimates(seen))

    def index_rows(self, seen: Activations) -> Vectors:
        """(n, 384) unit rows of images in the index space.

        The mean is taken from the estimate as it comes out of the regression: at length 1 its share of it would be too small.
        """
        return self.centred(self._estimates(seen))

    def _estimates(self, seen: Activations) -> NDArray[np.float32]:
        return np.asarray(features(seen, self.class_vectors) @ self.weight + self.bias)

    def centred(self, vectors: NDArray[np.float32]) -> Vectors:
        """(n, 384) rows of MiniLM space moved to the index space: the mean taken away, length 1 again."""
        return unit_rows(vectors - self.text_mean)


def features(seen: Activations, class_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 2664) what the head reads: pooled features, log-probabilities of the classes, and the ConSE vector.

    ConSE: the names' vectors of the ten likeliest classes, weighted by their probability (Norouzi et al. 2013, arXiv 1312.5650).
    """
    shifted = seen.logits - seen.logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.concatenate([seen.pooled, log_probabilities, conse(log_probabilities, class_vectors)], axis=1, dtype=np.float32)


def conse(log_probabilities: NDArray[np.float32], class_vectors: NDArray[np.float32]) -> Vectors:
    """(n, 384) unit rows: the classes' vectors, weighted by the ten highest probabilities."""
    top = np.argpartition(-log_probabilities, _CONSE_TOP, axis=1)[:, :_CONSE_TOP]
    weights = np.exp(np.take_along_axis(log_probabilities, top, axis=1))
    return unit_rows(np.einsum("nk,nkd->nd", weights, class_vectors[top]))


def write_head(path: Path, head: LiteHead) -> None:
    """Write the head as safetensors, whole or not at all; what does not change a result in its third digit is float16."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(getattr(head, name)) for name in _SHAPES}
    for name in ("class_vectors", "weight"):
        tensors[name] = tensors[name].astype(np.float16)
    metadata = {
        "format": f"{FORMAT[0]}.{FORMAT[1]}",
        "weights_sha256": json.dumps(head.weights_sha256, sort_keys=True),
        "training": json.dumps(head.training, sort_keys=True),
    }
    with atomic_write(path) as file:
        file.write(save(tensors, metadata=metadata))


def read_head(path: Path) -> LiteHead:
    """The head of a file that `train` wrote.

    Raises:
        WeightsMissing: there is no such file.
        WeightsRejected: it is no head, or its tensors have other shapes.
        FormatVersion: it was written in a newer format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsMissing(f"no head lies at {path}.", path=path, hint="Name a file that `train --out` wrote.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a mapping)
    except (SafetensorError, OSError) as error:
        raise _rejected(path, f"it cannot be read as safetensors ({error})") from error
    _check_format(path, metadata)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != _SHAPES:
        raise _rejected(path, f"its tensors are {shapes}, not {_SHAPES}")
    return LiteHead(
        **{name: tensor.astype(np.float32) for name, tensor in tensors.items()},
        weights_sha256=json.loads(metadata["weights_sha256"]),
        training=json.loads(metadata["training"]),
    )


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    if not {"format", "weights_sha256", "training"} <= metadata.keys():
        raise _rejected(path, "it carries no head's metadata")
    if int(metadata["format"].split(".")[0]) > FORMAT[0]:
        raise FormatVersion(
            f"{path} is a head of format {metadata['format']}; this version reads up to {FORMAT[0]}.x.",
            hint="Update imprompt, or train the head again.",
        )


def _rejected(path: Path, why: str) -> WeightsRejected:
    return WeightsRejected(f"{path} is no head of lite: {why}.", path=path, hint="Name a file that `train --out` wrote.")
