"""MiniLM's tokenizer, which neither truncates nor pads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.encoders.batches import encodable
from imprompt.encoders.caching import token_cache
from imprompt.encoders.weights import pinned_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class MiniLMTokens:
    """Tokens of texts; those of the last texts are kept, and the file is read at its first use."""

    def __init__(self) -> None:
        self._tokens = token_cache(self._tokenized)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, [CLS] and [SEP] included.

        Raises:
            WeightsMissing, WeightsRejected: the file is missing or not the pinned one.
        """
        return self._tokens(texts)

    def lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text, [CLS] and [SEP] included; raises as a call does."""
        return np.array([len(tokens) for tokens in self._tokens(texts)], dtype=np.int64)

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encodings = self._tokenizer.encode_batch_fast([encodable(text) for text in texts])
        return [encoding.ids for encoding in encodings]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(pinned_weights("minilm-tokenizer").path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
