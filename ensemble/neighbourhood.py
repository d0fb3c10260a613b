"""The prompts around a picture: one search that all members and the choice of the answer's words share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import MemberUnavailable, SpaceMismatch
from imprompt.core.protocols import DualEncoder, TextEncoder, VectorStore
from imprompt.core.values import Hits, Ids, Selection, Vectors, unit_rows
from imprompt.encoders.caching import LastPictures
from imprompt.encoders.minilm import SPACE
from imprompt.retriever.search import check_space

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.store.open_index import OpenIndex

_MEAN_BLOCK_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The k nearest prompts of n pictures.

    `pictures` (n, dim) are the pictures' rows in the index space, `hits` (n, k) what was found
    there, `vectors` (n, k, 384) the prompts' rows in MiniLM space; zeros where there is no hit.
    """

    pictures: Vectors
    hits: Hits
    vectors: NDArray[np.float32]


class Neighbourhood:
    """Finds the prompts around pictures; pictures that were just looked at are not searched for again.

    Args:
        version: stays open as long as this is used.
        pair: of the version's space.
        k: how many prompts, at most as many as the index has.
        allowed: the only rows that are found; None for all.

    Raises:
        SpaceMismatch: the pair is of another space than the index.
        MemberUnavailable: the index holds no MiniLM vectors of its prompts.
    """

    def __init__(
        self, version: OpenIndex, pair: DualEncoder, *, k: int, allowed: Ids | None = None
    ) -> None:
        check_space(version, pair.spec)
        self.pair = pair
        self._index = version.index(version.space)
        self._prompts = version.prompts
        self._vectors = output_vectors(version)
        self.k = min(k, len(self._index), self._index.caps.max_k)
        self._selection = None if allowed is None else Selection(allowed)
        self.look = LastPictures(self._look)

    def nearest(
        self, pictures: Sequence[Image], targets: Vectors
    ) -> tuple[Ids, NDArray[np.float32]]:
        """(n,) row ids and (n,) cosines: for each picture, which of the prompts around it is nearest to its target.

        Args:
            targets: (n, 384) unit rows in MiniLM space.
        """
        found = self.look(pictures)
        cosines = np.einsum("nkd,nd->nk", found.vectors, targets)
        cosines[found.hits.ids < 0] = -np.inf
        best = cosines.argmax(axis=1)
        rows = np.arange(len(pictures))
        return found.hits.ids[rows, best], cosines[rows, best]

    def texts(self, row_ids: Ids) -> list[str]:
        """The prompts of these rows, in the order given."""
        return [prompt.text for prompt in self._prompts.get_many(row_ids)]

    @cached_property
    def mean(self) -> Vectors:
        """(384,) the direction of the mean of all prompts: the best guess for a picture of which nothing is known."""
        total = np.zeros(self._vectors.dim)
        for _, block in self._vectors.blocks(_MEAN_BLOCK_ROWS):
            total += block.sum(axis=0, dtype=np.float64)
        mean: Vectors = unit_rows(total[None])[0]
        return mean

    def _look(self, pictures: Sequence[Image]) -> Surroundings:
        rows = self.pair.images.encode(pictures)
        hits = self._index.search(rows, self.k, selection=self._selection)
        flat = hits.ids.reshape(-1)
        vectors = np.zeros((len(flat), self._vectors.dim), dtype=np.float32)
        vectors[flat >= 0] = self._vectors.rows(flat[flat >= 0])
        return Surroundings(rows, hits, vectors.reshape(len(pictures), self.k, self._vectors.dim))


def output_vectors(version: OpenIndex) -> VectorStore:
    """MiniLM's vectors of all prompts of a version, in row order.

    Raises:
        MemberUnavailable: it was built without them.
    """
    try:
        return version.vectors(SPACE)
    except SpaceMismatch as error:
        raise MemberUnavailable(
            "knn",
            f"the index {version.manifest.version} holds no MiniLM vectors of its prompts (space {SPACE})",
            hint="Build it again with this version: python cli.py build-index --replace",
        ) from error


class SharedPair:
    """A pair whose image tower keeps what it saw in the pictures shown last, for the next one who asks."""

    def __init__(self, pair: DualEncoder) -> None:
        self._pair = pair
        self.spec = pair.spec
        self.images = SharedImages(pair)

    @property
    def texts(self) -> TextEncoder:
        return self._pair.texts


class SharedImages:
    """The image tower of a pair, which is loaded when it is first asked."""

    def __init__(self, pair: DualEncoder) -> None:
        self._look = LastPictures(lambda pictures: pair.images.encode(pictures))

    def encode(self, items: Sequence[Image]) -> Vectors:
        """(n, dim) unit rows in the order given; not to be changed."""
        return self._look(items)
