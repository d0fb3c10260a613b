"""The protocols that rooms share; see `docs/architecture.md` for their contract suites.

A single item is a batch of one; no method returns two types. What cannot be done raises an error of
`imprompt.core.errors`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from imprompt.core.predicates import Predicate
from imprompt.core.values import (
    CorpusBatch,
    EncoderSpec,
    Hits,
    Ids,
    IndexCaps,
    Prediction,
    Prompt,
    Selection,
    Vectors,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Item = TypeVar("Item", contravariant=True)


class Encoder(Protocol[Item]):
    """Turns items into unit vectors of one space."""

    def encode(self, items: Sequence[Item]) -> Vectors:
        """(n, dim) float32 unit rows in the order given; an empty sequence gives (0, dim).

        A row does not depend on the other items beyond rounding (max abs 1e-5).
        """
        ...


class TextEncoder(Encoder[str], Protocol):
    """An encoder of texts."""

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text before truncation, special tokens included."""
        ...


@runtime_checkable
class DualEncoder(Protocol):
    """A text tower and an image tower that share one space.

    Each is loaded at its first use and then kept.
    """

    @property
    def spec(self) -> EncoderSpec: ...

    @property
    def texts(self) -> TextEncoder: ...

    @property
    def images(self) -> Encoder[Image]:
        """The tower of upright RGB pictures, as `imprompt.images.decode.open_image` gives them.

        They may be reduced as by `ENOUGH_PX`.
        """
        ...


class CorpusSource(Protocol):
    """A corpus of prompts, read as a stream, in the same order every time."""

    @property
    def name(self) -> str:
        """What `RawPrompt.source` says: short, without a folder of this machine."""
        ...

    @property
    def synthetic(self) -> bool:
        """True where a program wrote the prompts; every answer then says so."""
        ...

    @property
    def origin(self) -> str:
        """Where it was fetched from, with its revision; "" for what lies on this machine."""
        ...

    def fingerprint(self) -> str:
        """Return a digest that is equal for equal rows in the same order, wherever they lie."""
        ...

    def batches(self, size: int, start: int = 0) -> Iterator[CorpusBatch]:
        """Yield batches of at most `size` rows, from row `start` on; rejected rows count too.

        Raises:
            CorpusError: the source as a whole cannot be read.
        """
        ...


class PromptStore(Protocol):
    """The texts of one version."""

    def __len__(self) -> int: ...

    def get_many(self, row_ids: Sequence[int] | Ids) -> list[Prompt]:
        """Return the prompts in the order asked for, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
        """
        ...

    def by_key(self, prompt_key: str) -> Prompt | None:
        """Return the first prompt of that stable name; None if there is none."""
        ...

    def rows_of(self, prompt_keys: Collection[str]) -> Ids:
        """Return the row ids of the prompts with these keys, rising; unknown keys are ignored."""
        ...

    def matching(self, predicate: Predicate) -> Ids:
        """Return the row ids of the prompts that a predicate is true of, rising."""
        ...

    def group_sizes(self, group_ids: Sequence[int]) -> dict[int, int]:
        """Return for each group how many prompts it stands for, their duplicates included."""
        ...

    def frequent_phrases(self, limit: int) -> list[tuple[str, int]]:
        """Return at most `limit` phrases of the prompts, and how often each was submitted, falling.

        Raises:
            StoreError: this store cannot count them.
        """
        ...


class VectorStore(Protocol):
    """The stored vectors of one space, in row order. Safe to read from several threads."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def rows(self, row_ids: Ids) -> Vectors:
        """Return (n, dim) float32 unit rows in the order asked for, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
        """
        ...

    def blocks(self, size: int) -> Iterator[tuple[int, Vectors]]:
        """Yield (first row id, block of at most `size` rows) of all rows."""
        ...


class VectorIndex(Protocol):
    """Nearest neighbours by cosine in one space."""

    @property
    def dim(self) -> int: ...

    @property
    def caps(self) -> IndexCaps: ...

    def __len__(self) -> int: ...

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        effort: float | None = None,
        selection: Selection | None = None,
    ) -> Hits:
        """Return the k nearest rows of each query: k wherever k rows are selected, however few.

        Args:
            queries: (q, dim) float32 unit rows.
            k: 1 to `caps.max_k`.
            effort: 0 (fast) to 1 (exact); None is the effort that the manifest's recall was
                measured with. Up to k = `caps.steady_k` the candidates depend on it alone.
            selection: the only rows that may be answered; None allows all.

        Raises:
            SpaceMismatch: the queries have another dimension.
            QueryError: k or effort out of range, queries not float32 or not finite.
        """
        ...


class EnsembleMember(Protocol):
    """One way to estimate the embedding of the prompt behind an image."""

    @property
    def name(self) -> str:
        """What blend configs call it."""
        ...

    def predict(self, images: Sequence[Image]) -> Prediction:
        """What it says of upright RGB pictures, in the order given; no pictures give (0, 384).

        A row does not depend on the other pictures beyond rounding.

        Raises:
            MemberUnavailable, EncoderError: its model fails.
        """
        ...


class Progress(Protocol):
    """Where long work reports to.

    `imprompt.core.progress.Silent` keeps still; the command line draws bars.
    """

    def start(self, label: str, total: int | None) -> ProgressTask:
        """Begin a stage; `total` is None where it is not known beforehand."""
        ...


class ProgressTask(Protocol):
    """One running stage; a context manager that ends it."""

    def advance(self, n: int) -> None: ...

    def __enter__(self) -> ProgressTask: ...

    def __exit__(self, *exc: object) -> None: ...
