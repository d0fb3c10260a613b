"""The immutable values that rooms exchange."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

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
class Parameters:
    """The generation parameters beside a prompt; false where there are none.

    `negative` is the negative prompt, empty without one. `settings` maps lower-case names (model,
    sampler, steps, …) to their text.
    """

    negative: str = ""
    settings: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.negative or self.settings)


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt of a corpus before cleaning.

    `source` names the corpus (a file, a data set), `source_key` the row in it (a line, a file).
    `n_submitted` is at least 1. `nsfw` is the corpus's own rating (DiffusionDB's `prompt_nsfw`, 0
    to 1), None if it has none. `parameters` is None where the corpus has none.
    """

    text: str
    source: str
    source_key: str
    n_submitted: int = 1
    nsfw: float | None = None
    parameters: Parameters | None = None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row of a corpus that could not be read; counts are grouped by `reason`, a short phrase."""

    source: str
    source_key: str
    reason: str


@dataclass(frozen=True, slots=True)
class CorpusBatch:
    """Consecutive rows of one source; `next_start` is the `start` of the next batch."""

    prompts: tuple[RawPrompt, ...]
    rejected: tuple[RejectedRow, ...]
    next_start: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of a published version.

    `text` is as people typed it, `embedded_text` is what the encoder read. `row_id` is valid in its
    version only; `prompt_key` is the stable name. Near-duplicates share a `group_id`, which is the
    row id of a prompt without any. `n_duplicates` near-duplicates were dropped for this prompt; its
    `n_submitted` includes theirs.
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

    @property
    def shown(self) -> str:
        """Return the prompt without weights, tags, flags, outer quotes and stray punctuation."""
        return without_edges(self.embedded_text) or self.text


@dataclass(frozen=True, slots=True)
class Selection:
    """The only rows that a search may return, by their ids, in any order.

    If `predicate` is set, it is true for exactly these rows: a backend that can compile it need not
    be sent the ids.
    """

    row_ids: Ids
    predicate: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Hits:
    """The result of a search: `ids` (q, k) int64 and `scores` (q, k) float32 cosines.

    Scores descend along a row; ties are in order of id. If fewer than k rows exist, the rest is
    (-1, -inf).
    """

    ids: Ids
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The identity of an encoder; vectors may be compared only if `space` is equal.

    `weights_sha256` maps a file's role ("text", "image", "head") to the sha256 of its bytes.
    `preprocessing` names the text and image preprocessing. `batch_size` is that of the text tower,
    0 if unknown; it changes the last bits of vectors, so it is part of the plan too. So is `dtype`,
    the type to compute in if the user chose one; "" leaves it to the device.
    """

    name: str
    space: str
    dim: int
    max_tokens: int
    weights_sha256: dict[str, str] = field(default_factory=dict)
    preprocessing: str = ""
    batch_size: int = 0
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class IndexCaps:
    """What a vector index guarantees.

    `max_k` is the largest k. Up to `steady_k` the candidates do not depend on k, so that the first
    5 of k = 50 are the 5 of k = 5.
    """

    max_k: int
    steady_k: int


Role: TypeAlias = Literal[
    "subject", "medium", "style", "artist", "light", "composition", "colour", "quality"
]
"""What a phrase of a prompt is about."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A part of a prompt.

    `row_ids` are the prompts around a picture that hold it, nearest first, `support` is their
    number. A phrase of a member or an encoder that no prompt holds has neither.
    """

    text: str
    role: Role
    support: int = 0
    row_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """A member's answer for n images: `vectors` (n, 384), unit rows in MiniLM's space.

    `texts` has one text per image if the member produces words; a vector need not be the embedding
    of its text.
    """

    vectors: Vectors
    texts: tuple[str, ...] | None = None


def unit_rows(array: ArrayLike, *, role: str = "the encoder") -> Vectors:
    """Scale each row to Euclidean length 1.

    Args:
        array: (n, dim) real numbers of any float type; a row of zeros stays zero.
        role: names the origin of the numbers in the message.

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
            f"{role} returns values that are not finite.",
            hint="Its weights may be damaged; on a GPU try --device cpu.",
        )
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.ascontiguousarray(values / np.where(norms == 0, 1, norms), dtype=np.float32)


def normalize_text(text: str) -> str:
    """Return the text in Unicode NFC with single spaces, the form that exact duplicates share."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def without_edges(text: str) -> str:
    """Return the text without spaces, punctuation and symbols at either end."""
    kept = [place for place, char in enumerate(text) if not _is_edge(char)]
    return text[kept[0] : kept[-1] + 1] if kept else ""


def _is_edge(char: str) -> bool:
    return unicodedata.category(char)[0] in "PSZC"


def prompt_key(text: str) -> str:
    """Return the stable name of a prompt: the sha256 of `normalize_text(text)` in UTF-8."""
    return hashlib.sha256(normalize_text(text).encode("utf-8")).hexdigest()
