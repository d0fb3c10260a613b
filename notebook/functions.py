"""What needs no index: the prompt in a file, and the vectors of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.values import Vectors

if TYPE_CHECKING:
    from imprompt.encoders.minilm import MiniLM
    from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt


def read_prompt(image: str | Path | bytes) -> EmbeddedPrompt | None:
    """Return the prompt that an image file carries, or None.

    Nothing is estimated: no index and no model is needed.

    Args:
        image: a path, or the bytes of an image file.

    Raises:
        ImageRejected: the file cannot be read.
        MetadataRejected: its metadata is too large to be read.
    """
    from imprompt.images.prompts.embedded_prompts import read_embedded_prompt

    return read_embedded_prompt(Path(image) if isinstance(image, str) else image, hidden=True)


def embed_prompts(texts: Sequence[str], *, device: str = "auto") -> Vectors:
    """Return (n, 384) float32 unit rows of all-MiniLM-L6-v2, which the competition scores.

    Args:
        texts: n prompts; of each, the first 256 tokens count.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ConfigError: `texts` is one text, or the device cannot be used.
        WeightsMissing: the weights are not on this machine.
    """
    from imprompt.core.errors import ConfigError

    if isinstance(texts, str):
        raise ConfigError("embed_prompts takes a list of texts.", hint="Put the text in brackets.")
    return _minilm(device).encode(list(texts))


@cache
def _minilm(device: str) -> MiniLM:
    from imprompt.encoders.minilm import load_minilm

    return load_minilm(device=device)
