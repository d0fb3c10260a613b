"""The protocols that rooms share; see `docs/architecture.md` for their contract suites.

A single item is a batch of one. Failures raise an error of `imprompt.core.errors`.
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
    Parameters,
    Prediction,
    Prompt,
    Selection,
    Vectors,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Item = TypeVar("Item", contravariant=True)


class Encoder(Protocol[Item]):
    """An encoder of items into unit vectors of one space."""

    def encode(self, items: Sequence[Item]) -> Vectors:
        """Return (n, dim) float32 unit rows in the order given; (0, dim) for no items.

        A row does not depend on the other items beyond rounding (max abs 1e-5).
        """
        ...


class TextEncoder(Encoder[str], Protocol):
    """An encoder of texts."""

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (n,) token counts before truncation, special tokens included."""
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
        """Return the image tower.

        It takes upright RGB images as `imprompt.images.decode.open_image` returns them, with
        `ENOUGH_PX` or with all pixels.
        """
        ...


class CorpusSource(Protocol):
    """A corpus of prompts, read as a stream, in the same order every time."""

    @property
    def name(self) -> str:
        """Return the value of `RawPrompt.source`: short, without a local folder."""
        ...

    @property
    def synthetic(self) -> bool:
        """Return whether a program wrote the prompts; every answer then says so."""
        ...

    @property
    def origin(self) -> str:
        """Return where it was fetched from, with its revision; "" for a local corpus."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of the rows and their order, which does not depend on their location."""
        ...

    def batches(self, size: int, start: int = 0) -> Iterator[CorpusBatch]:
        """Yield batches of at most `size` rows from row `start`, counting rejected rows.

        Raises:
            CorpusError: the source as a whole cannot be read.
        """
        ...


class PromptStore(Protocol):
    """The texts of one version."""

    def __len__(self) -> int: ...

    def get_many(self, row_ids: Sequence[int] | Ids) -> list[Prompt]:
        """Return the prompts in the order of the ids, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
        """
        ...

    def parameters(self, row_ids: Sequence[int] | Ids) -> dict[int, Parameters]:
        """Return the generation parameters of those rows that have any, by row id."""
        ...

    def by_key(self, prompt_key: str) -> Prompt | None:
        """Return the first prompt with that stable name, or None."""
        ...

    def rows_of(self, prompt_keys: Collection[str]) -> Ids:
        """Return the row ids of the prompts with these keys, ascending; ignore unknown keys."""
        ...

    def matching(self, predicate: Predicate) -> Ids:
        """Return the row ids of the prompts that match a predicate, ascending."""
        ...

    def group_sizes(self, group_ids: Sequence[int]) -> dict[int, int]:
        """Return the number of prompts per group: its rows and the duplicates dropped for them."""
        ...

    def frequent_phrases(self, limit: int) -> list[tuple[str, int]]:
        """Return up to `limit` phrases that prompts are made of, the most submitted first.

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
        """Return (n, dim) float32 unit rows in the order of the ids, repeats included.

        Raises:
            UnknownRow: an id is below 0 or not below `len(self)`.
        """
        ...

    def blocks(self, size: int) -> Iterator[tuple[int, Vectors]]:
        """Yield (first row id, block) over all rows, at most `size` rows each."""
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
        """Return the k nearest rows of each query; fewer only if fewer rows are selected.

        Args:
            queries: (q, dim) float32 unit rows.
            k: 1 to `caps.max_k`.
            effort: 0 (fast) to 1 (exact); None is the effort of the manifest's recall. Up to k =
                `caps.steady_k` the candidates depend on it alone.
            selection: the only rows that may be returned; None allows all.

        Raises:
            SpaceMismatch: the queries have another dimension.
            QueryError: k or effort out of range, queries not float32 or not finite.
        """
        ...


class EnsembleMember(Protocol):
    """One way to estimate the embedding of the prompt behind an image."""

    @property
    def name(self) -> str:
        """Return its name in blend configs."""
        ...

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Return a prediction for upright RGB images in the order given; (0, 384) for none.

        A row does not depend on the other images beyond rounding.

        Raises:
            MemberUnavailable, EncoderError: its model fails.
        """
        ...


class Progress(Protocol):
    """A receiver of progress: bars on the command line, or `imprompt.core.progress.SILENT`."""

    def start(self, label: str, total: int | None) -> ProgressTask:
        """Begin a stage of `total` items, None if unknown."""
        ...


class ProgressTask(Protocol):
    """A running stage; leaving its context ends it."""

    def advance(self, n: int) -> None: ...

    def __enter__(self) -> ProgressTask: ...

    def __exit__(self, *exc: object) -> None: ...
