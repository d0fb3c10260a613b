"""The values that pass between rooms: frozen, checked once, never mutated."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imprompt.core.errors import EncoderError
from imprompt.core.predicates import Predicate

Vectors: TypeAlias = NDArray[np.float32]
"""(n, dim) float32, C-order, finite, rows of Euclidean length 1."""

Ids: TypeAlias = NDArray[np.int64]
"""Dense row ids of one version, 0 to rows - 1; -1 where there is no hit."""

NO_HIT = -1


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt as a corpus gives it, before cleaning.

    `source` names the corpus (a file name, a data set), `source_key` finds the row again inside it
    (a line, a file), `n_submitted` is how often it was submitted (at least 1), `nsfw` how unsafe
    the corpus itself calls it (DiffusionDB's `prompt_nsfw`, 0 to 1), None where it does not say.
    """

    text: str
    source: str
    source_key: str
    n_submitted: int = 1
    nsfw: float | None = None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row of a corpus that could not be read:

    `reason` is a short phrase that counts are grouped by.
    """

    source: str
    source_key: str
    reason: str


@dataclass(frozen=True, slots=True)
class CorpusBatch:
    """Consecutive rows of one source.

    `next_start` is the `start` that goes on right behind this batch.
    """

    prompts: tuple[RawPrompt, ...]
    rejected: tuple[RejectedRow, ...]
    next_start: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of a published version.

    `text` is shown, `embedded_text` is what the encoder saw. `row_id` holds within its version
    only; `prompt_key` is the stable name. `group_id` is shared by prompts that were found to be
    near duplicates (its own row id where there are none). `n_duplicates` different prompts near this
    one were left out for it; what they were submitted counts in its `n_submitted`.
    """

    row_id: int
    prompt_key: str
    text: str
    embedded_text: str
    source: str
    source_key: str
    n_submitted: int
    group_id: int
    n_duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """The only rows that a search may answer, by their ids, in any order.

    Where `predicate` is set, it is true of these rows and of no others: a backend that can compile
    it need not be sent the ids.
    """

    row_ids: Ids
    predicate: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found: `ids` (q, k) int64, `scores` (q, k) float32 cosines.

    Scores fall along a row, ties stand by rising id; where fewer than k rows exist, the rest is
    (-1, -inf).
    """

    ids: Ids
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Which encoder made a vector. Two encoders may be compared only where `space` is equal.

    `weights_sha256` maps a file's role ("text", "image", "head") to the sha256 of its bytes;
    `preprocessing` names the text and image preprocessing, so that a change of it changes the plan.
    `batch_size` is how many texts the text tower takes at once (0 where it does not say): another
    one changes some last bits, so it belongs to the plan too.
    """

    name: str
    space: str
    dim: int
    max_tokens: int
    weights_sha256: dict[str, str] = field(default_factory=dict)
    preprocessing: str = ""
    batch_size: int = 0


@dataclass(frozen=True, slots=True)
class IndexCaps:
    """What a vector index guarantees.

    `max_k` is the largest k. Up to `steady_k` the candidates do not depend on k, so that the first
    5 of k = 50 are the 5 of k = 5.
    """

    max_k: int
    steady_k: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a member of the ensemble says of n images: `vectors` (n, 384), unit rows in MiniLM's space, in the images' order.

    `texts` are one for each image where the member has words for it; a vector need not be its
    text's embedding.
    """

    vectors: Vectors
    texts: tuple[str, ...] | None = None


def unit_rows(array: ArrayLike, *, role: str = "the encoder") -> Vectors:
    """Scale each row to Euclidean length 1.

    Args:
        array: (n, dim) real numbers of any float type; a row of zeros stays zero.
        role: whose numbers they are, for the message.

    Returns:
        (n, dim) float32, C-order.

    Raises:
        EncoderError: a value is NaN or infinite.
        ValueError: not two-dimensional.
    """
    values = np.asarray(array, dtype=np.float32)
    if values.ndim != 2:
        raise ValueError(f"vectors must be (n, dim), not {values.shape}")
    if not np.isfinite(values).all():
        raise EncoderError(
            f"{role} gives values that are not finite.",
            hint="Its weights may be damaged; on a GPU try --device cpu.",
        )
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.ascontiguousarray(values / np.where(norms == 0, 1, norms), dtype=np.float32)


def normalize_text(text: str) -> str:
    """Unicode NFC, every run of white space to one space, none at the ends; the form that exact duplicates share."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def prompt_key(text: str) -> str:
    """The stable name of a prompt: sha256 (64 hex digits) of the UTF-8 bytes of `normalize_text(text)`."""
    return hashlib.sha256(normalize_text(text).encode("utf-8")).hexdigest()
