"""all-MiniLM-L6-v2, the encoder of the output space: texts to 384 numbers.

On a processor ONNX Runtime computes it, on a GPU sentence-transformers, which is also what tests
compare the former with. The weights are the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imprompt.core.device_names import check_device
from imprompt.core.errors import ConfigError, WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.pip_lines import install_extra
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.batches import Batches
from imprompt.encoders.minilm_tokens import MiniLMTokens
from imprompt.encoders.minilm_torch import TorchMiniLM, has_sentence_transformers
from imprompt.encoders.onnx_runtime import GRAPHS, Graph, onnx_provenance
from imprompt.encoders.torch_devices import choose_device, usable_gpu
from imprompt.encoders.weights import pinned_weights

DIM = 384
MAX_TOKENS = 256
"""The limit of its sentence_bert_config.json."""
SPACE = "minilm-l6-v2"
PREPROCESSING = "bert-wordpiece/1"
BATCH_SIZE = 32
"""Texts a batch on a processor, all of one length. On two cores 16 and 64 are no faster."""


class MiniLM(Protocol):
    """An `imprompt.core.protocols.TextEncoder` that counts tokens and says how it computes."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, 384) float32 unit rows in the order given; texts are cut at 256 tokens."""

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text before truncation, [CLS] and [SEP] included."""

    def provenance(self) -> dict[str, str | int]:
        """Return how the vectors are computed, with the batch size that memory allowed."""


class OnnxMiniLM:
    """MiniLM on the processor; its files are read at their first use."""

    def __init__(self, spec: EncoderSpec, *, announce: Announce) -> None:
        self.spec = spec
        self._batches = Batches(spec.batch_size, announce=announce)
        self._tokens = MiniLMTokens()

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, 384) float32 unit rows in the order given; texts are cut at 256 tokens."""
        sequences = [_cut(tokens) for tokens in self._tokens(items)]
        return self._batches.encode_by_length(
            sequences,
            [len(tokens) for tokens in sequences],
            # Texts that differ in case only, or after the cut, have equal tokens.
            keys=[tuple(tokens) for tokens in sequences],
            dim=DIM,
            encode_batch=lambda batch: self._network(np.array(batch, dtype=np.int64)),
            one_length=True,
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text before truncation, [CLS] and [SEP] included."""
        return self._tokens.lengths(texts)

    def provenance(self) -> dict[str, str | int]:
        """Return how the vectors are computed, with the batch size that memory allowed."""
        return onnx_provenance(batch_size=self._batches.batch_size)

    @cached_property
    def _network(self) -> Graph:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = pinned_weights("minilm").path
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:  # it changed since its digest was compared
            raise WeightsRejected(
                f"{path} is not a safetensors file: {error}.", path=path, hint="Fetch it again."
            ) from error
        used = {
            name: tensor
            for name, tensor in tensors.items()
            if not name.startswith(("pooler.", "embeddings.position_ids"))
        }
        return Graph(GRAPHS / "minilm.onnx", used, weights=path)


def _cut(tokens: list[int]) -> list[int]:
    return tokens if len(tokens) <= MAX_TOKENS else tokens[: MAX_TOKENS - 1] + tokens[-1:]


def load_minilm(*, device: str = "auto", announce: Announce = silent) -> MiniLM:
    """Return the encoder of the output space; its weights are read at their first use.

    Args:
        device: "cpu", or what sentence-transformers computes on: "cuda" in float16, "mps". "auto"
            takes CUDA where it can be used.
        announce: takes a line for the user.

    Raises:
        ConfigError: unknown device, or it cannot be used.
        WeightsMissing, WeightsRejected: a weight file is missing or not the pinned one.
    """
    check_device(device)
    weights, tokenizer = pinned_weights("minilm"), pinned_weights("minilm-tokenizer")
    spec = EncoderSpec(
        name="minilm",
        space=SPACE,
        dim=DIM,
        max_tokens=MAX_TOKENS,
        weights_sha256={"text": weights.sha256, "tokenizer": tokenizer.sha256},
        preprocessing=PREPROCESSING,
        batch_size=BATCH_SIZE,
    )
    chosen = _device(device, announce)
    if chosen == "cpu":
        return OnnxMiniLM(spec, announce=announce)
    return TorchMiniLM(spec, device=chosen, announce=announce)


def _device(device: str, announce: Announce) -> str:
    """Return "cpu", or a device of torch that can be used."""
    if device == "cpu":
        return "cpu"
    if device == "auto" and not usable_gpu():
        return "cpu"
    if not has_sentence_transformers():
        if device != "auto":
            raise ConfigError(
                f"MiniLM needs sentence-transformers to compute on {device}.",
                hint=f"{install_extra('torch')}, or choose --device cpu.",
            )
        announce(f"MiniLM runs on the CPU; to use the GPU: {install_extra('torch')}")
        return "cpu"
    return choose_device(device)
