"""Phrases as rows of an encoder's space: a list is encoded once for an encoder, kept, and ranked for batches of pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import StorageFull
from imprompt.core.hub.fetch import Announce
from imprompt.core.protocols import DualEncoder, TextEncoder
from imprompt.core.settings import settings
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.lite import LiteEncoder

BLOCK_LABELS = 8_192
"""Labels a file of the cache: what is lost when encoding is broken off, 15 s with `lite` on one core."""

_SPARE = 8
"""Candidates that are scored again beyond those asked for: rounding in a batch's product must not decide who is among them."""
_PICTURES = 128
"""Pictures whose scores are held at a time: 50 MB for 100,000 labels."""
_ANNOUNCED = 2_000


@dataclass(frozen=True, slots=True)
class PhraseTable:
    """Labels and their rows (n, dim) in an encoder's space: float32 that holds half precision, as the library keeps them."""

    labels: tuple[str, ...]
    rows: Vectors

    def top(self, pictures: Vectors, n: int) -> list[list[str]]:
        """For each picture its `n` labels of highest cosine, the best first, ties by place in the list; all where there are fewer.

        Args:
            pictures: (p, dim) unit rows of the space.
            n: at least 0.
        """
        n = min(n, len(self.labels))
        if n == 0:
            return [[] for _ in pictures]
        blocks = [
            pictures[start : start + _PICTURES] for start in range(0, len(pictures), _PICTURES)
        ]
        return [
            [self.labels[place] for place in places]
            for block in blocks
            for places in self._places(block, n)
        ]

    def _places(self, pictures: Vectors, n: int) -> NDArray[np.int64]:
        """(p, n) places of the best labels.

        They are chosen among a few more by sums that do not depend on the other pictures.
        """
        scores = pictures @ self.rows.T
        rows = np.arange(len(pictures))
        found = np.empty((len(pictures), min(n + _SPARE, len(self.labels))), dtype=np.int64)
        for column in range(
            found.shape[1]
        ):  # for a few out of 100,000, several passes are ten times as fast as a partition
            best = scores.argmax(axis=1)
            found[:, column] = best
            scores[rows, best] = -np.inf
        found.sort(axis=1)
        exact = np.einsum(
            "pd,pcd->pc", pictures.astype(np.float64), self.rows[found].astype(np.float64)
        )
        return np.take_along_axis(found, np.argsort(-exact, axis=1, kind="stable")[:, :n], axis=1)


def phrase_table(labels: Sequence[str], pair: DualEncoder, *, announce: Announce) -> PhraseTable:
    """The labels in the space of a pair. What was encoded before by the same text tower is read from the user's cache folder.

    A file of the cache that is damaged is made again. A cache that cannot be written costs time,
    nothing else.

    Args:
        announce: told before more than 2,000 labels are encoded.

    Raises:
        EncoderError: the text tower cannot be used.
    """
    if isinstance(pair, LiteEncoder):  # whatever its head, its texts are made of MiniLM
        return PhraseTable(
            tuple(labels),
            pair.texts.centred(_rows(labels, pair.minilm, pair.minilm.spec, announce=announce)),
        )
    return PhraseTable(tuple(labels), _rows(labels, pair.texts, pair.spec, announce=announce))


def encoder_key(spec: EncoderSpec) -> str:
    """What the rows of a text depend on, as 16 hex digits: weights, space and preprocessing."""
    identity = [
        spec.space,
        sorted(spec.weights_sha256.items()),
        spec.preprocessing,
        spec.max_tokens,
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _rows(
    labels: Sequence[str], encoder: TextEncoder, spec: EncoderSpec, *, announce: Announce
) -> Vectors:
    folder = settings().cache / "phrases" / encoder_key(spec)
    rows = np.empty((len(labels), spec.dim), dtype=np.float32)
    told = len(labels) <= _ANNOUNCED
    for start in range(0, len(labels), BLOCK_LABELS):
        block = list(labels[start : start + BLOCK_LABELS])
        path = folder / f"{hashlib.sha256(json.dumps(block).encode()).hexdigest()}.safetensors"
        half = _kept(path, (len(block), spec.dim))
        if half is None:
            if not told:
                announce(
                    f"Encoding up to {len(labels) - start:,} phrases for the interrogator, once; kept in {folder}."
                )
                told = True
            half = encoder.encode(block).astype(np.float16)
            _keep(path, half)
        rows[start : start + len(block)] = half
    return rows


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.float16] | None:
    """The rows of a file of the cache, or None where it is not there or not what was written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(path.read_bytes())
        rows, digest = tensors["rows"], tensors["sha256"].tobytes()
    except (OSError, SafetensorError, KeyError):
        return None
    right = (
        rows.shape == shape
        and rows.dtype == np.float16
        and digest == hashlib.sha256(rows.tobytes()).digest()
    )
    return rows if right else None


def _keep(path: Path, rows: NDArray[np.float16]) -> None:
    from safetensors.numpy import save

    digest = np.frombuffer(hashlib.sha256(rows.tobytes()).digest(), dtype=np.uint8)
    with suppress(StorageFull, OSError), atomic_write(path) as file:
        file.write(save({"rows": rows, "sha256": digest}))
