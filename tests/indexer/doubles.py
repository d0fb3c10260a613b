"""A small encoder for tests of the build: a hashed bag of words, quick and deterministic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.core.values import EncoderSpec, RawPrompt, Vectors, prompt_key, unit_rows
from imprompt.indexer.readers.rows import StreamedSource
from tests.images.tool_files import png_texts

DIM = 24
MAX_TOKENS = 12


class BagOfWords:
    """Counts words by their hash; `seen` lists the sizes of the batches that it encoded."""

    def __init__(self, space: str = "bag", *, dim: int = DIM) -> None:
        self.spec = EncoderSpec(
            name=space, space=space, dim=dim, max_tokens=MAX_TOKENS, weights_sha256={"text": space}
        )
        self.seen: list[int] = []

    def encode(self, items: Sequence[str]) -> Vectors:
        self.seen.append(len(items))
        counts = np.zeros((len(items), self.spec.dim), dtype=np.float32)
        for row, text in enumerate(items):
            for word in text.lower().split():
                digest = hashlib.sha256(f"{self.spec.space} {word}".encode()).digest()
                counts[row, digest[0] % self.spec.dim] += 1 + digest[1] / 256
        return unit_rows(counts)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text.split()) + 2 for text in texts], dtype=np.int64)

    def provenance(self) -> dict[str, str]:
        return {"backend": "words"}


class NoImages:
    """The image tower that no build asks for."""

    def encode(self, items: Sequence[object]) -> Vectors:
        raise NotImplementedError


class BagPair:
    """A pair around `BagOfWords`."""

    def __init__(self, space: str = "bag") -> None:
        self.texts = BagOfWords(space)
        self.images = NoImages()

    @property
    def spec(self) -> EncoderSpec:
        return self.texts.spec


def listed(
    texts: list[str], *, name: str = "listed", n_submitted: int = 1, synthetic: bool = False
) -> StreamedSource:
    """A corpus of these texts."""

    def rows(start: int) -> Iterator[RawPrompt]:
        return iter(
            [RawPrompt(text, name, f"row {i}", n_submitted) for i, text in enumerate(texts)][start:]
        )

    return StreamedSource(
        name, synthetic, rows, lambda: prompt_key(json.dumps([name, texts])), lambda: len(texts)
    )


def write_corpus(path: Path, n: int, *, salt: str = "") -> Path:
    """Write `n` prompts: every seventh repeats an earlier one, every eleventh is not UTF-8."""
    lines = []
    for i in range(n):
        number = i // 2 if i % 7 == 6 else i
        colour = ("red", "blue", "green")[number % 3]
        lines.append(
            f"prompt {number} of a {colour} thing {salt} {'word ' * (number % 15)}".encode()
        )
        if i % 11 == 10:
            lines.append(b"bad \xff line")
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def write_image(
    path: Path, prompt: str, *, negative: str = "", settings: str = "Steps: 20, Seed: 1, Size: 8x8"
) -> Path:
    """A PNG whose metadata AUTOMATIC1111 would have written."""
    lines = [prompt, f"Negative prompt: {negative}" if negative else "", settings]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_texts({"parameters": "\n".join(filter(None, lines))}))
    return path
