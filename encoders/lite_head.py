"""The head of `lite`: its small trained part, the constants of its two spaces, and their file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import FormatVersion, WeightsMissing, WeightsRejected
from imprompt.core.logistic import sigmoid
from imprompt.core.values import Vectors, unit_rows
from imprompt.encoders.class_words import SeenWord
from imprompt.encoders.efficientnet import CLASSES, POOLED_DIM, STAGES_DIM, Activations

FORMAT = (2, 0)
TEXT_DIM = 384
TRUNKS = ("lite2", "lite0")
"""The trunks that a head reads."""

BLOCK_DIMS = (POOLED_DIM, STAGES_DIM["lite2"], POOLED_DIM, STAGES_DIM["lite0"], TEXT_DIM)
"""Widths of the blocks of `features`: lite2's last layer and stages, lite0's, and ConSE."""

FEATURE_DIM = sum(BLOCK_DIMS)
BASIS_DIM = 352
PAIRED_DIM = 64
EXPANDED_DIM = BASIS_DIM + PAIRED_DIM * (PAIRED_DIM + 1) // 2
"""What the maps read: 352 principal components, and the 2,080 products of the first 64."""

PHOTO_ODDS = 0.15
"""How much likelier the pairs make a photograph than pictures that people ask about do.

Generated pictures of sources that were left out are often taken for photographs; at .15 they lose
.001 of their mean cosine, and photographs .01.
"""
TAG_LEAST = 0.15
"""The probability from which a tag is said."""
MOST_TAGS = 10

_CONSE_TOP = 10
_METADATA = "imprompt-lite-head"
_SHAPES = {
    "class_vectors": (CLASSES, TEXT_DIM),
    "prompt_mean": (TEXT_DIM,),
    "centre": (FEATURE_DIM,),
    "scale": (FEATURE_DIM,),
    "basis": (FEATURE_DIM, BASIS_DIM),
    "output_weight": (EXPANDED_DIM, TEXT_DIM),
    "output_bias": (TEXT_DIM,),
    "caption_bias": (TEXT_DIM,),
    "index_weight": (EXPANDED_DIM, TEXT_DIM),
}
_LABEL_TENSORS = ("label_weight", "label_slope", "label_intercept")
_HALF = ("class_vectors", "basis", "output_weight", "index_weight", "label_weight")
"""Stored as float16; the figures of the model card stay the same to four digits."""


@dataclass(frozen=True, slots=True)
class LiteHead:
    """Two maps from activations of the image trunks: into MiniLM space and into the index space.

    Constants, the same in every head that grows from the shipped one: `class_vectors` (1000, 384),
    MiniLM's unit vectors of the ImageNet classes' names, and `prompt_mean` (384,), the mean of
    MiniLM's vectors of real prompts, which the index space leaves out. Trained: `centre`, `scale`
    (4584,) and `basis` (4584, 352), with which the features are `expanded`; `output_weight` (2432,
    384) leads from there to MiniLM space with `output_bias`, the wording of prompts, or
    `caption_bias`, that of captions; `index_weight` (2432, 384) leads to the index space.
    `label_weight` (2432, 1 + t), `label_slope` and `label_intercept` (1 + t,) give the logits of
    labels: the first that the picture is a photograph, the others that the words of `tags` describe
    it. `weights_sha256` are the digests of the backbones, `training` describes the training set.
    """

    class_vectors: NDArray[np.float32]
    prompt_mean: NDArray[np.float32]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    basis: NDArray[np.float32]
    output_weight: NDArray[np.float32]
    output_bias: NDArray[np.float32]
    caption_bias: NDArray[np.float32]
    index_weight: NDArray[np.float32]
    label_weight: NDArray[np.float32]
    label_slope: NDArray[np.float32]
    label_intercept: NDArray[np.float32]
    tags: tuple[str, ...]
    weights_sha256: dict[str, str]
    training: dict[str, str] = field(default_factory=dict)

    @property
    def space(self) -> str:
        """Return the index space's name; vectors are comparable if the same mean was subtracted."""
        return index_space_of(self.prompt_mean)

    def outputs(self, seen: Mapping[str, Activations]) -> Vectors:
        """Return (n, 384) unit rows of images in MiniLM space.

        A photograph is worded like a caption, as far as it is likely to be one.
        """
        inputs = self._expanded(seen)
        photo = sigmoid(self._logits(inputs, slice(1)) + np.log(PHOTO_ODDS)).astype(np.float32)
        bias = (1 - photo) * self.output_bias + photo * self.caption_bias
        return unit_rows(inputs @ self.output_weight + bias, role="the image head of lite")

    def seen_tags(self, seen: Mapping[str, Activations]) -> list[tuple[SeenWord, ...]]:
        """Return up to ten tags for each of n images, likeliest first; none if none is likely."""
        chances = sigmoid(self._logits(self._expanded(seen), slice(1, None)))
        return [
            tuple(
                SeenWord(self.tags[tag], float(row[tag]))
                for tag in np.argsort(-row, kind="stable")[:MOST_TAGS]
                if row[tag] >= TAG_LEAST
            )
            for row in chances
        ]

    def index_rows(self, seen: Mapping[str, Activations]) -> Vectors:
        """Return (n, 384) unit rows of images in the index space."""
        return unit_rows(self._expanded(seen) @ self.index_weight, role="the image head of lite")

    def centred(self, vectors: Vectors) -> Vectors:
        """Return (n, 384) unit rows of the index space: MiniLM's rows minus the mean."""
        return unit_rows(vectors - self.prompt_mean, role="the text tower of lite")

    def _logits(self, inputs: NDArray[np.float32], labels: slice) -> NDArray[np.float64]:
        scores = inputs @ self.label_weight[:, labels]
        logits = scores * self.label_slope[labels] + self.label_intercept[labels]
        return logits.astype(np.float64)

    def _expanded(self, seen: Mapping[str, Activations]) -> NDArray[np.float32]:
        return expanded((features(seen, self.class_vectors) - self.centre) * self.scale, self.basis)


def expanded(scaled: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, 2432): the features' unit principal components and products of the leading ones.

    A linear map of them is a kernel regression with .5 <x, y> + .25 <x, y>², the square over the
    leading components only: a thing and its style together mean more than the two apart.

    Args:
        scaled: (n, 4584) centred and scaled features.
        basis: (4584, 352) principal directions, the leading first.
    """
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    components = scaled @ basis / np.where(lengths == 0, 1, lengths)
    first, second = np.triu_indices(PAIRED_DIM)
    factor = np.where(first == second, 0.5, np.sqrt(0.5)).astype(np.float32)
    products = components[:, first] * components[:, second] * factor
    return np.concatenate([components * np.sqrt(0.5, dtype=np.float32), products], axis=1)


def features(
    seen: Mapping[str, Activations], class_vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (n, 4584) features of the trunks "lite2" and "lite0", in blocks as in `BLOCK_DIMS`.

    The last layer is read through a square root, which tames its long tail. The stages carry what a
    classifier throws away: colour, texture and style, half of what a prompt is about.
    """
    large, small = seen["lite2"], seen["lite0"]
    blocks = [
        np.sqrt(large.pooled),
        large.stages,
        np.sqrt(small.pooled),
        small.stages,
        conse(large.logits, class_vectors),
    ]
    return np.concatenate(blocks, axis=1, dtype=np.float32)


def conse(logits: NDArray[np.float32], class_vectors: NDArray[np.float32]) -> Vectors:
    """Return (n, 384) unit rows: the ten likeliest classes' name vectors, by probability.

    ConSE of Norouzi et al. 2013 (arXiv 1312.5650).
    """
    top = np.argpartition(-logits, _CONSE_TOP, axis=1)[:, :_CONSE_TOP]
    chosen = np.take_along_axis(logits, top, axis=1)
    # The softmax needs no divisor, because the rows are scaled to length 1.
    weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return unit_rows(np.einsum("nk,nkd->nd", weights, class_vectors[top]))


def write_head(path: Path, head: LiteHead) -> None:
    """Write the head as safetensors, atomically, with its large tensors as float16."""
    from safetensors.numpy import save

    tensors = {
        name: np.ascontiguousarray(
            getattr(head, name), dtype=np.float16 if name in _HALF else np.float32
        )
        for name in (*_SHAPES, *_LABEL_TENSORS)
    }
    facts = {
        "format": FORMAT,
        "tags": head.tags,
        "training": head.training,
        "weights_sha256": head.weights_sha256,
    }
    # One entry, because safetensors orders several at random, and equal heads give equal files.
    metadata = {_METADATA: json.dumps(facts, sort_keys=True)}
    with atomic_write(path) as file:
        file.write(save(tensors, metadata=metadata))


def read_head(path: Path) -> LiteHead:
    """Return the head of a file that `train` wrote.

    Raises:
        WeightsMissing: the file does not exist.
        WeightsRejected: it is not a head, or its tensors have other shapes.
        FormatVersion: it was written in another format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsMissing(
            f"there is no head {path}.", path=path, hint="Name a file that `train --out` wrote."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a mapping)
    except (SafetensorError, OSError) as error:
        raise _rejected(path, f"it cannot be read as safetensors ({error})") from error
    facts = _checked_facts(path, metadata)
    tags = tuple(facts["tags"])
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    expected = _SHAPES | {
        "label_weight": (EXPANDED_DIM, 1 + len(tags)),
        "label_slope": (1 + len(tags),),
        "label_intercept": (1 + len(tags),),
    }
    if shapes != expected:
        raise _rejected(path, f"its tensors are {shapes}, not {expected}")
    return LiteHead(
        **{name: tensor.astype(np.float32) for name, tensor in tensors.items()},
        tags=tags,
        weights_sha256=facts["weights_sha256"],
        training=facts["training"],
    )


def index_space_of(prompt_mean: NDArray[np.float32]) -> str:
    """Return the name of the index space that this (384,) mean makes."""
    return f"lite-{hashlib.sha256(prompt_mean.tobytes()).hexdigest()[:12]}"


def read_prompt_mean(path: Path) -> NDArray[np.float32]:
    """Return the (384,) `prompt_mean` of a head's file, without reading the rest.

    Raises:
        WeightsRejected: the file is missing or not a head.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            mean = np.asarray(file.get_tensor("prompt_mean"), dtype=np.float32)
    except (SafetensorError, OSError) as error:
        raise _rejected(path, f"it cannot be read as safetensors ({error})") from error
    if mean.shape != _SHAPES["prompt_mean"]:
        raise _rejected(path, f"its prompt_mean is {mean.shape}")
    return mean


def _checked_facts(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if _METADATA not in metadata:
        raise _rejected(path, "it lacks a head's metadata")
    facts: dict[str, Any] = json.loads(metadata[_METADATA])
    major, minor = facts["format"]
    if major != FORMAT[0]:
        raise FormatVersion(
            f"{path} is a head of format {major}.{minor}; this version reads {FORMAT[0]}.x.",
            hint="Update imprompt."
            if major > FORMAT[0]
            else "Train the head again: imprompt train. Indexes built with it stay valid.",
        )
    return facts


def _rejected(path: Path, why: str) -> WeightsRejected:
    return WeightsRejected(
        f"{path} is not a head of lite: {why}.",
        path=path,
        hint="Name a file that `train --out` wrote.",
    )
