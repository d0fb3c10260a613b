"""Vectors of phrase lists: encoded once for an encoder, cached, and ranked for pictures."""

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
from imprompt.core.text import duration_text
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.batches import seconds_each
from imprompt.encoders.lite import LiteEncoder

BLOCK_LABELS = 8_192
"""Labels in a file of the cache; an interruption loses one, 15 s with `lite` on one core."""

_SPARE = 8
"""Extra candidates to score exactly: rounding in a batch's product must not change the result."""
_PICTURES = 128
"""Pictures scored at a time: 50 MB of scores for 100,000 labels."""
_ANNOUNCED = 2_000


@dataclass(frozen=True, slots=True)
class PhraseTable:
    """Labels and their rows (n, dim) in an encoder's space.

    The rows are float32 values of half precision, as the library keeps them.
    """

    labels: tuple[str, ...]
    rows: Vectors

    def top(self, pictures: Vectors, n: int) -> list[list[str]]:
        """Return, for each picture, the `n` labels of highest cosine, the best first.

        Ties are in the order of the list; all labels come if there are fewer.

        Args:
            pictures: (p, dim) unit rows of the space.
            n: at least 0.
        """
        n = min(n, len(self.labels))
        if n == 0:
            return [[] for _ in pictures]
        blocks = (
            pictures[start : start + _PICTURES] for start in range(0, len(pictures), _PICTURES)
        )
        return [
            [self.labels[index] for index in indices]
            for block in blocks
            for indices in self._top_indices(block, n)
        ]

    def _top_indices(self, pictures: Vectors, n: int) -> NDArray[np.int64]:
        """Return (p, n) indices of the best labels.

        They are chosen among a few more by sums that do not depend on the other pictures.
        """
        scores = pictures @ self.rows.T
        rows = np.arange(len(pictures))
        candidates = np.empty((len(pictures), min(n + _SPARE, len(self.labels))), dtype=np.int64)
        # For a few out of 100,000, several passes are ten times as fast as a partition.
        for column in range(candidates.shape[1]):
            best = scores.argmax(axis=1)
            candidates[:, column] = best
            scores[rows, best] = -np.inf
        candidates.sort(axis=1)
        exact = np.einsum(
            "pd,pcd->pc", pictures.astype(np.float64), self.rows[candidates].astype(np.float64)
        )
        order = np.argsort(-exact, axis=1, kind="stable")[:, :n]
        return np.take_along_axis(candidates, order, axis=1)


def phrase_table(labels: Sequence[str], encoder: DualEncoder, *, announce: Announce) -> PhraseTable:
    """Return the labels in the encoder's space; rows are cached by text tower.

    A damaged file of the cache is made again. A cache that cannot be written costs only time.

    Args:
        announce: called before more than 2,000 labels are encoded.

    Raises:
        EncoderError: the text tower fails.
    """
    if isinstance(encoder, LiteEncoder):  # with any head, its texts are made of MiniLM's rows
        rows = _rows(labels, encoder.minilm, encoder.minilm.spec, announce=announce)
        return PhraseTable(tuple(labels), encoder.texts.centred(rows))
    return PhraseTable(tuple(labels), _rows(labels, encoder.texts, encoder.spec, announce=announce))


def encoder_key(spec: EncoderSpec) -> str:
    """Return 16 hex digits for all that a text's row depends on.

    That is weights, space and preprocessing.
    """
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
    announced = len(labels) <= _ANNOUNCED
    for start in range(0, len(labels), BLOCK_LABELS):
        block = list(labels[start : start + BLOCK_LABELS])
        path = folder / f"{hashlib.sha256(json.dumps(block).encode()).hexdigest()}.safetensors"
        half = _read_rows(path, (len(block), spec.dim))
        if half is None:
            if not announced:
                seconds = (len(labels) - start) * seconds_each(encoder.encode, block)
                announce(
                    f"Encoding up to {len(labels) - start:,} phrases for the interrogator, once, "
                    f"in about {duration_text(seconds)}; they are kept in {folder}."
                )
                announced = True
            half = encoder.encode(block).astype(np.float16)
            _write_rows(path, half)
        rows[start : start + len(block)] = half
    return rows


def _read_rows(path: Path, shape: tuple[int, int]) -> NDArray[np.float16] | None:
    """Return the rows of a file of the cache, or None where it is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(path.read_bytes())
        rows, digest = tensors["rows"], tensors["sha256"].tobytes()
    except (OSError, SafetensorError, KeyError):
        return None
    intact = (
        rows.shape == shape
        and rows.dtype == np.float16
        and digest == hashlib.sha256(rows.tobytes()).digest()
    )
    return rows if intact else None


def _write_rows(path: Path, rows: NDArray[np.float16]) -> None:
    from safetensors.numpy import save

    digest = np.frombuffer(hashlib.sha256(rows.tobytes()).digest(), dtype=np.uint8)
    with suppress(StorageFull, OSError), atomic_write(path) as file:
        file.write(save({"rows": rows, "sha256": digest}))
