"""MiniLM by sentence-transformers, for GPUs: the same weights, in float16 on CUDA."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.hub.fetch import Announce
from imprompt.core.values import EncoderSpec, Vectors, unit_rows
from imprompt.encoders.batches import Batches, encodable
from imprompt.encoders.minilm_tokens import MiniLMTokens
from imprompt.encoders.torch_devices import dtype_on, torch_provenance
from imprompt.encoders.weights import pinned_weights

_BATCH_SIZE = 512
"""Texts a batch, sorted by length."""


def has_sentence_transformers() -> bool:
    """Return whether sentence-transformers is installed, without importing it."""
    return importlib.util.find_spec("sentence_transformers") is not None


class TorchMiniLM:
    """MiniLM on a device of torch; its files are read at their first use.

    Args:
        spec: of MiniLM.
        device: of torch: "cpu", "cuda" or "mps".
        announce: takes a line for the user when memory is too small for a batch.
    """

    def __init__(self, spec: EncoderSpec, *, device: str, announce: Announce) -> None:
        self.spec = spec
        self._tokens = MiniLMTokens()
        self._device = device
        self._batches = Batches(_BATCH_SIZE, announce=announce)

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, 384) float32 unit rows in the order given; texts are cut at 256 tokens."""
        texts = [encodable(text) for text in items]
        return self._batches.encode_by_length(
            texts, [len(text) for text in texts], keys=texts, dim=self.spec.dim,
            encode_batch=self._run,
        )  # fmt: skip

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text before truncation, [CLS] and [SEP] included."""
        return self._tokens.lengths(texts)

    def provenance(self) -> dict[str, str | int]:
        """Return how the vectors are computed, with the batch size that memory allowed."""
        return torch_provenance(
            self._device, dtype=dtype_on(self._device), batch_size=self._batches.batch_size
        )

    def _run(self, texts: list[str]) -> Vectors:
        rows = self._network.encode(texts, batch_size=len(texts), show_progress_bar=False)
        return unit_rows(rows, role="MiniLM")  # of float16 rows, the length is off by 1e-3

    @cached_property
    def _network(self) -> Any:
        return load_sentence_transformer(
            pinned_weights("minilm").path.parent,
            dim=self.spec.dim,
            max_tokens=self.spec.max_tokens,
            device=self._device,
            dtype=dtype_on(self._device),
        )


def load_sentence_transformer(
    folder: Path, *, dim: int, max_tokens: int, device: str, dtype: str
) -> Any:
    """Return MiniLM of a folder as a `SentenceTransformer` whose rows have length 1.

    Its modules are named here, because those of a folder's modules.json could be anything.
    """
    import sentence_transformers
    import torch
    from sentence_transformers import SentenceTransformer

    models: Any = sentence_transformers.models  # type: ignore[attr-defined]

    bert = models.Transformer(
        str(folder),
        max_seq_length=max_tokens,
        model_args={"local_files_only": True, "dtype": getattr(torch, dtype)},
    )
    pooling = models.Pooling(dim, "mean")
    return SentenceTransformer(modules=[bert, pooling, models.Normalize()], device=device)
