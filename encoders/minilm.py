"""all-MiniLM-L6-v2, the encoder of the output space: texts to 384 numbers.

sentence-transformers gives the same vectors (a test compares them) but takes 7 s to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.device_names import check_device
from imprompt.core.errors import WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.batches import Batches, encodable
from imprompt.encoders.bert import Bert, BertConfig, expected_shapes
from imprompt.encoders.caching import token_cache
from imprompt.encoders.torch_devices import choose_device, dtype_on, torch_provenance
from imprompt.encoders.weights import file_sha256, packaged_weights, pinned_sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

MAX_TOKENS = 256
"""Of the packaged model, from its sentence_bert_config.json."""
SPACE = "minilm-l6-v2"
PREPROCESSING = "bert-wordpiece/1"
BATCH_SIZE = 32
"""Texts a batch. On one core, 500 real prompts, best of four: 94, 96 and 95 prompts/s in batches
of 16, 32 and 64; sentence-transformers reaches 74 in batches of 8, its best, and 67 in its default
of 32."""

_FOLDER_HINT = (
    "Name a folder of a BERT sentence-transformers model with mean pooling, "
    "such as all-MiniLM-L6-v2."
)


class _Limit(msgspec.Struct, frozen=True):
    max_seq_length: int


class _Pooling(msgspec.Struct, frozen=True):
    pooling_mode_mean_tokens: bool = False
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode: str = ""


class MiniLM:
    """An `imprompt.core.protocols.TextEncoder` whose files are read at their first use."""

    def __init__(
        self,
        folder: Path,
        spec: EncoderSpec,
        config: BertConfig,
        *,
        device: str,
        announce: Announce,
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._config = config
        self._device = device
        self._batches = Batches(spec.batch_size, announce=announce)
        self._tokens = token_cache(self._tokenized)

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, 384) float32 unit rows in the order given; texts are cut at `max_tokens`."""
        sequences = [self._cut(tokens) for tokens in self._tokens(items)]
        return self._batches.encode_by_length(
            sequences,
            [len(tokens) for tokens in sequences],
            # Texts that differ in case only, or after the cut, have equal tokens.
            keys=[tuple(tokens) for tokens in sequences],
            dim=self.spec.dim,
            encode_batch=lambda batch: self._network.embed(batch),
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text before truncation, [CLS] and [SEP] included."""
        return np.array([len(tokens) for tokens in self._tokens(texts)], dtype=np.int64)

    def provenance(self) -> dict[str, str | int]:
        """Return how the vectors are computed, with the batch size that memory allowed."""
        return torch_provenance(choose_device(self._device), batch_size=self._batches.batch_size)

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encodings = self._tokenizer.encode_batch_fast([encodable(text) for text in texts])
        return [encoding.ids for encoding in encodings]

    def _cut(self, tokens: list[int]) -> list[int]:
        limit = self.spec.max_tokens
        return tokens if len(tokens) <= limit else tokens[: limit - 1] + tokens[-1:]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        path = self._folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise _rejected(f"{path} is not a tokenizer: {error}.", path) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _network(self) -> Bert:
        device = choose_device(self._device)
        tensors = _read_bert_tensors(self._folder / "model.safetensors", self._config)
        return Bert(tensors, self._config, device=device, dtype=dtype_on(device))


def _read_bert_tensors(path: Path, config: BertConfig) -> dict[str, Tensor]:
    """Read the tensors that the network needs; shapes are compared before any of it is loaded."""
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            for name, expected in expected_shapes(config).items():
                shape = tuple(file.get_slice(name).get_shape()) if name in names else None
                if shape != expected:
                    raise _rejected(
                        f"{path} does not fit its config.json: "
                        f"{name} should be {expected}, is {shape or 'missing'}.",
                        path,
                    )
                tensors[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _rejected(f"{path} is not a safetensors file: {error}.", path) from error
    return tensors


def load_minilm(
    folder: Path | None = None, *, device: str = "auto", announce: Announce = silent
) -> MiniLM:
    """Return the encoder of the output space; its weights are read at their first use.

    Args:
        folder: of a sentence-transformers BERT model with mean pooling; None takes the package's.
        device: "auto", "cpu" or "cuda"; float16 on CUDA.
        announce: takes a line for the user.

    Raises:
        ConfigError: unknown device.
        WeightsMissing: the package or a file of the folder is missing.
        WeightsRejected: a file has wrong contents.
    """
    check_device(device)
    if folder is None:
        weights, tokenizer = packaged_weights("minilm"), packaged_weights("minilm-tokenizer")
        folder = weights.path.parent
        text_sha256, tokenizer_sha256 = weights.sha256, tokenizer.sha256
    else:
        text_sha256 = file_sha256(folder / "model.safetensors")
        tokenizer_sha256 = file_sha256(folder / "tokenizer.json")
    config = _read_config(folder)
    limit = _read(folder / "sentence_bert_config.json", _Limit).max_seq_length
    is_pinned = text_sha256 == pinned_sha256("minilm")
    spec = EncoderSpec(
        name="minilm",
        space=SPACE if is_pinned else f"bert-{text_sha256[:12]}",
        dim=config.hidden_size,
        max_tokens=min(limit, config.max_position_embeddings),
        weights_sha256={"text": text_sha256, "tokenizer": tokenizer_sha256},
        preprocessing=PREPROCESSING,
        batch_size=BATCH_SIZE,
    )
    return MiniLM(folder, spec, config, device=device, announce=announce)


def _read_config(folder: Path) -> BertConfig:
    config = _read(folder / "config.json", BertConfig)
    if (config.model_type, config.hidden_act, config.position_embedding_type) != (
        "bert",
        "gelu",
        "absolute",
    ):
        raise _rejected(
            f"{folder} holds a {config.model_type} with {config.hidden_act} and "
            f"{config.position_embedding_type} positions, "
            "not a BERT with gelu and absolute positions.",
            folder,
        )
    pooling = _read(folder / "1_Pooling" / "config.json", _Pooling)
    if (
        pooling.pooling_mode_cls_token
        or pooling.pooling_mode_max_tokens
        or not (pooling.pooling_mode_mean_tokens or pooling.pooling_mode == "mean")
    ):
        raise _rejected(f"{folder} does not pool by the mean of its tokens.", folder)
    return config


def _rejected(message: str, path: Path) -> WeightsRejected:
    return WeightsRejected(message, path=path, hint=_FOLDER_HINT)


_Config = TypeVar("_Config", bound=msgspec.Struct)


def _read(path: Path, kind: type[_Config]) -> _Config:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise WeightsMissing(
            f"{path} cannot be read: {error.strerror}.", path=path, hint=_FOLDER_HINT
        ) from error
    except msgspec.MsgspecError as error:
        raise _rejected(f"{path} is not valid: {error}.", path) from error
