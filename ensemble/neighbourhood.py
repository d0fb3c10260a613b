"""The nearest prompts of a picture: one search for all members and the printed prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import MemberUnavailable, SpaceMismatch
from imprompt.core.protocols import DualEncoder, VectorStore
from imprompt.core.values import Hits, Ids, Selection, Vectors, unit_rows
from imprompt.encoders.caching import BatchCache, image_keys
from imprompt.encoders.minilm import SPACE
from imprompt.retriever.search import check_space

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.store.open_index import OpenIndex

_MEAN_BLOCK_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The k nearest prompts of n pictures.

    `pictures` (n, dim) are the pictures' rows in the index space, `hits` (n, k) the prompts nearest
    to them, `vectors` (n, k, 384) the prompts' rows in MiniLM space; zeros where there is no hit.
    """

    pictures: Vectors
    hits: Hits
    vectors: NDArray[np.float32]


class Neighbourhood:
    """The search for the prompts nearest to pictures, done once for the pictures of a batch.

    Args:
        version: stays open as long as this is used.
        encoder: of the version's space.
        k: how many prompts, at most as many as the index has.
        allowed: the rows to search among; None for all.

    Raises:
        SpaceMismatch: the encoder is of another space than the index.
        MemberUnavailable: the index holds no MiniLM vectors of its prompts.
    """

    def __init__(
        self, version: OpenIndex, encoder: DualEncoder, *, k: int, allowed: Ids | None = None
    ) -> None:
        check_space(version, encoder.spec)
        self.encoder = encoder
        self._index = version.index(version.space)
        self._prompts = version.prompts
        self._vectors = output_vectors(version)
        self.k = min(k, len(self._index), self._index.caps.max_k)
        self._selection = None if allowed is None else Selection(allowed)
        self.surroundings = BatchCache(self._search, key=image_keys)

    def nearest(
        self, pictures: Sequence[Image], targets: Vectors
    ) -> tuple[Ids, NDArray[np.float32]]:
        """Return (n,) row ids and (n,) cosines of the surrounding prompts nearest to the targets.

        Args:
            pictures: n of them.
            targets: (n, 384) unit rows in MiniLM space, one for each picture.
        """
        around = self.surroundings(pictures)
        cosines = np.einsum("nkd,nd->nk", around.vectors, targets)
        cosines[around.hits.ids < 0] = -np.inf
        best = cosines.argmax(axis=1)
        rows = np.arange(len(pictures))
        return around.hits.ids[rows, best], cosines[rows, best]

    def texts(self, row_ids: Ids) -> list[str]:
        """Return the prompts of these rows, in the order given."""
        return [prompt.text for prompt in self._prompts.get_many(row_ids)]

    @cached_property
    def mean(self) -> Vectors:
        """Return the (384,) unit mean of all prompts, the best guess without a picture."""
        total = np.zeros(self._vectors.dim)
        for _, block in self._vectors.blocks(_MEAN_BLOCK_ROWS):
            total += block.sum(axis=0, dtype=np.float64)
        mean: Vectors = unit_rows(total[None])[0]
        return mean

    def _search(self, pictures: Sequence[Image]) -> Surroundings:
        rows = self.encoder.images.encode(pictures)
        hits = self._index.search(rows, self.k, selection=self._selection)
        return Surroundings(rows, hits, vectors_of(self._vectors, hits.ids))


def vectors_of(store: VectorStore, row_ids: Ids) -> NDArray[np.float32]:
    """Return the (n, k, dim) rows of (n, k) ids; zeros for id -1."""
    flat = row_ids.reshape(-1)
    rows = np.zeros((len(flat), store.dim), dtype=np.float32)
    rows[flat >= 0] = store.rows(flat[flat >= 0])
    return rows.reshape(*row_ids.shape, store.dim)


def output_vectors(version: OpenIndex) -> VectorStore:
    """Return MiniLM's vectors of all prompts of a version, in row order.

    Raises:
        MemberUnavailable: the version was built without them.
    """
    try:
        return version.vectors(SPACE)
    except SpaceMismatch as error:
        raise MemberUnavailable(
            "knn",
            f"the index {version.manifest.version} holds no MiniLM vectors of its prompts "
            f"(space {SPACE})",
            hint="Build it again with this release: imprompt build-index --replace",
        ) from error
