"""Collapses hits: keeps the nearest of each group of near duplicates, up to k groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imprompt.core.protocols import PromptStore, VectorIndex
from imprompt.core.values import NO_HIT, Ids, Prompt, Selection, Vectors
from imprompt.retriever.filters import PassingPrompts


@dataclass(slots=True)
class _GroupWalk:
    """The groups of one question picked so far, as its hits are visited nearest first."""

    picked: list[tuple[Prompt, float]] = field(default_factory=list)
    groups: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    finished: bool = False

    def take(self, prompt: Prompt, score: float, *, k: int, selection: PassingPrompts) -> None:
        """Visit one more hit; keep it if it is the first accepted one of its group."""
        if prompt.row_id in self.seen or self.finished:
            return
        self.seen.add(prompt.row_id)
        if prompt.group_id not in self.groups and selection.accepts(prompt.text):
            self.groups.add(prompt.group_id)
            self.picked.append((prompt, score))
            self.finished = len(self.picked) == k


def nearest_groups(
    vectors: Vectors,
    k: int,
    *,
    index: VectorIndex,
    prompts: PromptStore,
    selection: PassingPrompts,
    effort: float | None = None,
) -> list[list[tuple[Prompt, float]]]:
    """Return for each row the k nearest prompts that pass, one of each group, with their cosines.

    If the first k hits have fewer groups than k, the search goes deeper and finally visits all
    remaining rows, so fewer than k are returned only if the index has no more. Up to k =
    `caps.steady_k` the results for a smaller k are the first ones for a larger k. A larger k is
    searched at the index's full depth at once: the candidates of a shallower search could miss
    nearer prompts.

    Args:
        vectors: (n, dim) unit rows of the index's space.
        k: 1 to the index's `caps.max_k`.
        effort: see `imprompt.core.protocols.VectorIndex.search`.
    """
    walks = [_GroupWalk() for _ in vectors]
    pending = np.arange(len(vectors))
    most, steady = index.caps.max_k, index.caps.steady_k
    for depth in sorted({k, min(steady, most), most} if k <= steady else {most}):
        hits = index.search(vectors[pending], depth, effort=effort, selection=selection.rows)
        _take(
            [walks[i] for i in pending],
            hits.ids,
            hits.scores,
            prompts=prompts,
            k=k,
            selection=selection,
        )
        for i, ids in zip(pending, hits.ids, strict=True):
            walks[i].finished |= bool((ids == NO_HIT).any())  # the index has no more
        pending = np.array([i for i in pending if not walks[i].finished], dtype=np.int64)
        if not len(pending):
            break
    for i in pending:
        _search_the_rest(
            walks[i], vectors[i : i + 1], k, index=index, prompts=prompts, selection=selection
        )
    return [walk.picked for walk in walks]


def _take(
    walks: Sequence[_GroupWalk],
    ids: Ids,
    scores: NDArray[np.float32],
    *,
    prompts: PromptStore,
    k: int,
    selection: PassingPrompts,
) -> None:
    """Let each walk visit its row of hits; the prompts of all rows are fetched at once."""
    new_ids = [
        [row_id for row_id in row if row_id != NO_HIT and row_id not in walk.seen]
        for walk, row in zip(walks, ids.tolist(), strict=True)
    ]
    unique = sorted({row_id for row in new_ids for row_id in row})
    fetched = dict(zip(unique, prompts.get_many(unique), strict=True))
    for walk, row, row_scores in zip(walks, ids.tolist(), scores.tolist(), strict=True):
        for row_id, score in zip(row, row_scores, strict=True):
            if row_id in fetched:
                walk.take(fetched[row_id], score, k=k, selection=selection)


def _search_the_rest(
    walk: _GroupWalk,
    vector: Vectors,
    k: int,
    *,
    index: VectorIndex,
    prompts: PromptStore,
    selection: PassingPrompts,
) -> None:
    """Search the unseen rows exactly until the walk is finished or no row remains."""
    left = np.arange(len(index)) if selection.rows is None else selection.rows.row_ids
    while not walk.finished:
        left = np.setdiff1d(left, np.fromiter(walk.seen, np.int64), assume_unique=True)
        if not len(left):
            return
        hits = index.search(vector, index.caps.max_k, effort=1.0, selection=Selection(left))
        _take([walk], hits.ids, hits.scores, prompts=prompts, k=k, selection=selection)
