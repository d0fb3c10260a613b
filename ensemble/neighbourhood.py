"""The nearest prompts of a picture: one search for all members and the composed prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import MemberUnavailable, SpaceMismatch
from imprompt.core.protocols import DualEncoder, VectorStore
from imprompt.core.values import NO_HIT, Hits, Ids, Parameters, Prompt, Vectors, unit_rows
from imprompt.encoders.caching import BatchCache, image_keys
from imprompt.encoders.minilm import SPACE
from imprompt.retriever.filters import PassingPrompts
from imprompt.retriever.search import check_space

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.store.open_index import OpenIndex

_MEAN_BLOCK_ROWS = 16_384
_WIDER = 4
"""How many times more prompts to look at where a filter reads their texts."""


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
        passing: the prompts to search among; None for all. What its `accepts` refuses is left out
            of the 4 k nearest, so fewer than k or none may be left.
        effort: see `imprompt.core.protocols.VectorIndex.search`.

    Raises:
        SpaceMismatch: the encoder is of another space than the index.
        MemberUnavailable: the index holds no MiniLM vectors of its prompts.
    """

    def __init__(
        self,
        version: OpenIndex,
        encoder: DualEncoder,
        *,
        k: int,
        passing: PassingPrompts | None = None,
        effort: float | None = None,
    ) -> None:
        check_space(version, encoder.spec)
        self.encoder = encoder
        self._version = version
        self._effort = effort
        self._index = version.index(version.space)
        self._prompts = version.prompts
        self._vectors = output_vectors(version)
        self.k = min(k, len(self._index), self._index.caps.max_k)
        self.passing = passing or PassingPrompts()
        self.surroundings = BatchCache(self._search, key=image_keys)

    def among(self, passing: PassingPrompts) -> Neighbourhood:
        """Return a search among the prompts that pass filters."""
        return Neighbourhood(
            self._version, self.encoder, k=self.k, passing=passing, effort=self._effort
        )

    def prompts(self, pictures: Sequence[Image], k: int) -> list[list[Prompt]]:
        """Return the k nearest prompts of each picture, best first; fewer where fewer pass."""
        ids = self.surroundings(pictures).hits.ids[:, :k]
        unique = np.setdiff1d(ids, [NO_HIT])
        prompts = dict(zip(unique.tolist(), self._prompts.get_many(unique), strict=True))
        return [[prompts[row_id] for row_id in row if row_id != NO_HIT] for row in ids.tolist()]

    def parameters(self, prompts: Iterable[Prompt]) -> dict[int, Parameters]:
        """Return the generation parameters of those prompts that have any, by row id."""
        return self._prompts.parameters(sorted({prompt.row_id for prompt in prompts}))

    def nearest(
        self, pictures: Sequence[Image], targets: Vectors
    ) -> tuple[Ids, NDArray[np.float32]]:
        """Return (n,) row ids and (n,) cosines of the surrounding prompts nearest to the targets.

        They are -1 and -inf for a picture without any.

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

    def cosines(self, row_ids: Sequence[int], target: Vectors) -> list[float]:
        """Return MiniLM's cosine of each prompt with a (384,) unit vector."""
        rows = self._vectors.rows(np.array(row_ids, dtype=np.int64))
        cosines: list[float] = (rows @ target).tolist()
        return cosines

    def texts(self, row_ids: Ids) -> list[str]:
        """Return the prompts of these rows as shown, in the order given; an empty one for id -1."""
        found = row_ids[row_ids != NO_HIT]
        texts = {prompt.row_id: prompt.shown for prompt in self._prompts.get_many(found)}
        return [texts.get(row_id, "") for row_id in row_ids.tolist()]

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
        hits = self._hits(rows)
        return Surroundings(rows, hits, vectors_of(self._vectors, hits.ids))

    def _hits(self, rows: Vectors) -> Hits:
        passing = self.passing
        if passing.accepts_all:
            return self._index.search(rows, self.k, selection=passing.rows, effort=self._effort)
        k = min(_WIDER * self.k, len(self._index), self._index.caps.max_k)
        hits = self._index.search(rows, k, selection=passing.rows, effort=self._effort)
        unique = np.setdiff1d(hits.ids, [NO_HIT])
        texts = [prompt.text for prompt in self._prompts.get_many(unique)]
        accepted = unique[[passing.accepts(text) for text in texts]]
        ids = np.full((len(rows), self.k), NO_HIT, dtype=np.int64)
        scores = np.full(ids.shape, -np.inf, dtype=np.float32)
        for row, passes in enumerate(np.isin(hits.ids, accepted)):
            kept = np.flatnonzero(passes)[: self.k]
            ids[row, : len(kept)] = hits.ids[row, kept]
            scores[row, : len(kept)] = hits.scores[row, kept]
        return Hits(ids, scores)


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
